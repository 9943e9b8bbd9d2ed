"""Rendezvous of real processes, which import no JAX before they are connected."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

from deeprank_jax.cli.__main__ import create_parser

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = """
import signal, sys, time
from deeprank_jax.distributed import ends, rendezvous, signals
# Ignored where the tests run in the background.
signal.signal(signal.SIGINT, signal.default_int_handler)
ends.SILENCE_SECONDS, ends.BEAT_SECONDS = 3.0, 0.3
address, num, process, seconds, limit = sys.argv[1:]
describe = lambda number: f"deeprank: {number.name}."
send = rendezvous._Peer.send
def send_late(peer, line):
    if line == "joined":
        time.sleep(1.0)
    send(peer, line)
if JOINS_LATE:
    rendezvous._Peer.send = send_late
with signals.Ending(describe, owns_process=True) as end:
    try:
        meeting = rendezvous.Rendezvous(address, int(num), int(process)).start()
        meeting.wait(float(limit))
        assert "jax" not in sys.modules
        print("all", flush=True)
        time.sleep(float(seconds))
        meeting.leave()
    except signals.Interrupted as interrupted:
        end.say(interrupted.number)
        sys.exit(interrupted.status)
    except rendezvous.RendezvousError as error:
        sys.exit(f"deeprank: {error}")
time.sleep(0.2)
"""


@pytest.fixture
def start():
    processes = []
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{opened.getsockname()[1]}"

    def start(process, num=2, *, seconds=None, limit=20, late=False, at=address, **env):
        """Starts a process that leaves some seconds after all are there."""
        seconds = 0.5 * process if seconds is None else seconds
        words = [at, str(num), str(process), str(seconds), str(limit)]
        program = PROGRAM.replace("JOINS_LATE", str(late))
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", program, *words],
                cwd=ROOT, env={**os.environ, **env}, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )
        )  # fmt: skip
        return processes[-1]

    start.address = address
    yield start
    for process in processes:
        process.kill()
        process.communicate()


def end_of(process):
    """Returns the status and the sentence of a process."""
    _, stderr = process.communicate(timeout=60)
    assert "Traceback" not in stderr
    return process.returncode, stderr.strip()


@pytest.mark.slow
def test_all_meet_whoever_comes_first_and_may_leave_one_by_one(start):
    later = [start(1, 3), start(2, 3)]
    time.sleep(0.5)
    processes = [start(0, 3), *later]
    assert [end_of(process) for process in processes] == [(0, "")] * 3


def test_the_port_is_free_as_soon_as_all_are_there(start):
    """For JAX, which listens there while the connections are still open."""
    processes = [start(i, seconds=60) for i in range(2)]
    for process in processes:
        assert process.stdout.readline() == "all\n"
    host, port = start.address.split(":")
    with socket.create_server((host, int(port))):
        assert [process.poll() for process in processes] == [None, None]


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1, 2])
def test_a_signal_to_one_ends_all(start, victim):
    processes = [start(i, 3, seconds=60) for i in range(3)]
    for process in processes:
        assert process.stdout.readline() == "all\n"
    processes[victim].send_signal(signal.SIGINT)
    for i, process in enumerate(processes):
        status, sentence = end_of(process)
        assert status == 130
        if i == victim:
            assert sentence == "deeprank: SIGINT."
        else:
            assert f"SIGINT to process {victim} of 3: stopped, as all" in sentence


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_is_stopped_is_gone(start, victim):
    processes = [start(i, seconds=60) for i in range(2)]
    for process in processes:
        assert process.stdout.readline() == "all\n"
    processes[victim].send_signal(signal.SIGSTOP)
    status, sentence = end_of(processes[1 - victim])
    assert status == 1
    assert f"process {victim} of 2 is gone (not heard of for 3 s);" in sentence


def test_another_number_of_processes_is_refused_by_all(start):
    processes = [start(0, 2), start(1, 3)]
    ends = [end_of(process) for process in processes]
    assert ends[0] == ends[1]
    assert ends[0][0] == 1
    assert "--process_id=1 and --num_processes=3 wants to join process 0" in ends[0][1]


def connect(address):
    """Connects to process 0 as a stranger, as soon as it listens."""
    host, port = address.split(":")
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            return socket.create_connection((host, int(port)), 10)
    raise AssertionError("Process 0 does not listen.")


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        b"GET / HTTP/1.1\r\n\r\n" + b"x" * 1000,
        b"end 1 15\n",
        b"end x y\n",
        b"all\n",
        b"refused You are out.\n",
        b"deeprank 7 2\n",
        b"deeprank 0 2\n",
        b"deeprank x 2\n",
        b"joined\n",
    ],
)
def test_a_stranger_is_ignored(start, text):
    first = start(0)
    with connect(start.address) as stranger:
        stranger.sendall(text)
        assert stranger.recv(100) == b""  # Closed by process 0 at once.
    assert end_of(start(1))[0] == end_of(first)[0] == 0


@pytest.mark.slow
def test_a_stranger_that_says_nothing_is_not_kept(start):
    first = start(0)
    with connect(start.address) as stranger:
        begun = time.monotonic()
        assert stranger.recv(100) == b""
        assert 2.0 < time.monotonic() - begun < 8.0
    with connect(start.address) as stranger:
        second = start(1, seconds=0)
        assert stranger.recv(100) == b""
        assert end_of(second)[0] == end_of(first)[0] == 0


@pytest.mark.slow
def test_a_process_that_has_joined_is_not_gone_for_one_that_has_not(start):
    """Its connection stays open until it has said that it has joined."""
    processes = [start(0, seconds=3), start(1, seconds=0, late=True)]
    assert [end_of(process) for process in processes] == [(0, "")] * 2


@pytest.mark.slow
def test_the_process_that_is_missing_is_named_by_all(start):
    processes = [start(i, 3, limit=3 - i) for i in range(2)]
    expected = (1, "deeprank: process 2 did not appear within 3 s.")
    assert [end_of(process) for process in processes] == [expected] * 2


@pytest.mark.slow
def test_process_0_is_named_where_it_is_missing(start):
    expected = (1, "deeprank: process 0 did not appear within 1 s.")
    assert end_of(start(1, 3, limit=1)) == expected


@pytest.mark.parametrize(
    ("process", "address", "reason"),
    [(0, "127.0.0.1:99999", "OverflowError: "), (1, "a..b:80", "UnicodeError: ")],
)
def test_any_error_ends_the_wait(start, process, address, reason):
    status, sentence = end_of(start(process, limit=600, at=address))
    assert status == 1
    assert sentence.startswith(f"deeprank: {reason}")


def test_a_wrong_address_to_listen_at_ends_the_wait(start):
    bound = {"JAX_COORDINATOR_BIND_ADDRESS": "127.0.0.1:http"}
    status, sentence = end_of(start(0, limit=600, **bound))
    assert status == 1
    assert sentence.startswith("deeprank: ValueError: ")


@pytest.mark.parametrize(
    "address", ["localhost:99999", "localhost:0", "host", ":1", "a:b"]
)
def test_an_address_without_a_port_is_a_wrong_argument(address, capsys):
    with pytest.raises(SystemExit) as stopped:
        create_parser("train").parse_args(["train", f"--coordinator_address={address}"])
    assert stopped.value.code == 2
    assert f"'{address}' must be HOST:PORT, with a port from" in capsys.readouterr().err


def test_an_address_in_use_is_named(start):
    host, port = start.address.split(":")
    with socket.create_server((host, int(port))):
        assert end_of(start(0)) == (1, "deeprank: Address already in use.")
