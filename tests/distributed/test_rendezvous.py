"""Rendezvous of real processes, which import no JAX before they are connected."""

import contextlib
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = """
import sys, time
from deeprank_jax.distributed import ends, rendezvous, signals
ends.SILENCE_SECONDS, ends.BEAT_SECONDS = 3.0, 0.3
address, num, process = sys.argv[1:]
describe = lambda number: f"deeprank: {number.name}."
with signals.Ending(describe, owns_process=True) as end:
    try:
        meeting = rendezvous.Rendezvous(address, int(num), int(process)).start()
        meeting.wait(20)
        assert "jax" not in sys.modules
        print("all", flush=True)
        time.sleep(60 if WAITS else 0.5 * int(process))
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

    def start(process, num=2, *, waits=False):
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM.replace("WAITS", str(waits)),
                 address, str(num), str(process)],
                cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
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


def test_all_meet_whoever_comes_first_and_may_leave_one_by_one(start):
    later = [start(1, 3), start(2, 3)]
    time.sleep(0.5)
    processes = [start(0, 3), *later]
    assert [end_of(process) for process in processes] == [(0, "")] * 3


def test_the_port_is_free_as_soon_as_all_are_there(start):
    """For JAX, which listens there while the connections are still open."""
    processes = [start(i, waits=True) for i in range(2)]
    for process in processes:
        assert process.stdout.readline() == "all\n"
    host, port = start.address.split(":")
    with socket.create_server((host, int(port))):
        assert [process.poll() for process in processes] == [None, None]


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_a_signal_to_one_ends_all(start, victim):
    processes = [start(i, 3, waits=True) for i in range(3)]
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


@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_is_stopped_is_gone(start, victim):
    processes = [start(i, waits=True) for i in range(2)]
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


def test_a_stranger_is_ignored(start):
    first = start(0)
    host, port = start.address.split(":")
    deadline = time.monotonic() + 20
    connection = None
    while connection is None:
        assert time.monotonic() < deadline
        with contextlib.suppress(OSError):
            connection = socket.create_connection((host, int(port)))
    connection.sendall(b"GET / HTTP/1.1\r\n\r\n" + b"x" * 1000)
    connection.close()
    assert end_of(start(1))[0] == end_of(first)[0] == 0


def test_an_address_in_use_is_named(start):
    host, port = start.address.split(":")
    with socket.create_server((host, int(port))):
        assert end_of(start(0)) == (1, "deeprank: Address already in use.")
