"""A command starts anew with huge pages, where that can be of use, and once."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import pytest

from deeprank_jax.cli import huge_pages
from deeprank_jax.distributed import signals

PLUGIN = """
import json, os, pathlib, signal, sys
blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
process = {
    "tunables": os.environ.get("GLIBC_TUNABLES", ""),
    "pid": os.getpid(),
    "words": sys.argv[1:],
    "blocked": sorted(blocked & {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}),
}
with pathlib.Path("processes.jsonl").open("a") as file:
    file.write(json.dumps(process) + chr(10))
"""
SCRIPT = pathlib.Path(sys.executable).with_name("deeprank")
offered = pytest.mark.skipif(
    not huge_pages._are_offered(), reason="this system gives no huge pages on request"
)


@pytest.fixture(autouse=True)
def without_variable(monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)


@pytest.fixture
def offers(monkeypatch, tmp_path):
    """Returns a function that makes a system and counts the starts in a list."""
    starts = []
    monkeypatch.setattr(os, "execve", lambda *args: starts.append(args))

    def offer(
        mode="always [madvise] never",
        version="glibc 2.36",
        words=("-m", "deeprank_jax.main", "-q"),
    ):
        (tmp_path / "enabled").write_text(mode)
        monkeypatch.setattr(huge_pages, "_KERNEL", tmp_path / "enabled")
        monkeypatch.setattr(os, "confstr", lambda name: version)
        monkeypatch.setattr(sys, "orig_argv", ["python", *words])
        return starts

    yield offer
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.SIGNALS)


def test_it_starts_with_the_same_words_and_the_variable(offers, monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=3")
    starts = offers()
    huge_pages.restart()
    [(program, words, environment)] = starts
    assert program == sys.executable
    assert words == [sys.executable, "-m", "deeprank_jax.main", "-q"]
    expected = "glibc.malloc.check=3:glibc.malloc.hugetlb=1"
    held_back = environment.pop("DEEPRANK_SIGNALS_HELD_BACK")
    assert set(map(int, held_back.split())) == set(signals.SIGNALS)
    assert environment == {**os.environ, "GLIBC_TUNABLES": expected}


@pytest.mark.parametrize(
    "words",
    [
        ("-X", "utf8", "-B", "-m", "deeprank_jax.main"),
        ("-m", "deeprank_jax.cli", "train"),
        ("-W", "error", "bin/deeprank", "train"),
    ],
)
def test_it_knows_how_a_command_starts(offers, words):
    starts = offers(words=words)
    huge_pages.restart()
    assert starts[0][1] == [sys.executable, *words]


def test_a_debugger_stays(offers, monkeypatch):
    starts = offers()
    monkeypatch.setattr(sys, "gettrace", lambda: print)
    huge_pages.restart()
    assert not starts


def test_signals_that_were_held_back_come_through(monkeypatch):
    monkeypatch.setenv("DEEPRANK_SIGNALS_HELD_BACK", str(int(signal.SIGUSR1)))
    received = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: received.append(number))
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
        assert not received
        huge_pages.accept_signals()
        assert received == [signal.SIGUSR1]
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
        signal.signal(signal.SIGUSR1, before)
    assert "DEEPRANK_SIGNALS_HELD_BACK" not in os.environ


@pytest.mark.parametrize(
    "system",
    [
        dict(mode="[always] madvise never"),
        dict(mode="always madvise [never]"),
        dict(version="glibc 2.34"),
        dict(version=None),
        dict(version="musl 1.2"),
        dict(words=("-m", "pytest", "-q")),
        dict(words=("-m", "pdb", "-m", "deeprank_jax.main")),
        dict(words=("-m", "ipykernel_launcher", "-f", "deeprank")),
        dict(words=("-c", "import deeprank")),
        dict(words=("-Ic", "import deeprank")),
        dict(words=("mine.py", "deeprank")),
        dict(words=()),
    ],
    ids=str,
)
def test_where_it_is_of_no_use_nothing_is_done(offers, system):
    starts = offers(**system)
    huge_pages.restart()
    assert not starts


def test_a_system_without_the_file_is_left_alone(offers, monkeypatch, tmp_path):
    starts = offers()
    monkeypatch.setattr(huge_pages, "_KERNEL", tmp_path / "missing")
    huge_pages.restart()
    assert not starts


@pytest.mark.parametrize("value", [0, 1, 2])
def test_a_variable_of_the_user_stays(offers, monkeypatch, value):
    starts = offers()
    monkeypatch.setenv("GLIBC_TUNABLES", f"glibc.malloc.hugetlb={value}")
    huge_pages.restart()
    assert not starts


def test_without_memory_for_another_start_it_goes_on(offers, monkeypatch):
    offers()

    def fail(*args):
        assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        raise OSError

    monkeypatch.setattr(os, "execve", fail)
    huge_pages.restart()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert not blocked & set(signals.SIGNALS)


def run(folder, *start, **environment):
    """Runs a command that ends once its plug-in was imported; returns what that saw."""
    (folder / "plugin.py").write_text(PLUGIN)
    words = [
        "--config=folder",
        "--config.plugins=plugin.py",
        "--config.data.dir=nowhere",
    ]
    environment = {**os.environ, **environment}
    process = subprocess.Popen(
        [*start, *words], cwd=folder, env=environment, stderr=subprocess.PIPE, text=True
    )
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "nowhere: there is no such folder" in errors
    assert "Traceback" not in errors
    lines = (folder / "processes.jsonl").read_text().splitlines()
    processes = [json.loads(line) for line in lines]
    assert [x["pid"] for x in processes] == [process.pid]
    return processes[0]


@offered
@pytest.mark.slow
@pytest.mark.parametrize(
    "start",
    [[sys.executable, "-X", "utf8", "-m", "deeprank_jax.main"], [SCRIPT, "train"]],
    ids=["module", "script"],
)
def test_a_command_has_huge_pages(tmp_path, start):
    seen = run(tmp_path, *start)
    assert seen["tunables"] == "glibc.malloc.hugetlb=1"
    assert seen["words"][0] == "train"
    assert "--config.plugins=plugin.py" in seen["words"]
    assert seen["blocked"] == []


@offered
@pytest.mark.slow
def test_a_command_leaves_the_variable_of_the_user(tmp_path):
    seen = run(tmp_path, SCRIPT, "train", GLIBC_TUNABLES="glibc.malloc.hugetlb=0")
    assert seen["tunables"] == "glibc.malloc.hugetlb=0"


@offered
@pytest.mark.slow
@pytest.mark.parametrize("number", signals.SIGNALS)
def test_a_signal_during_the_restart_is_named(tmp_path, number):
    process = subprocess.Popen(
        [SCRIPT, "train", "--config=folder", "--config.data.dir=nowhere"],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    environment = pathlib.Path(f"/proc/{process.pid}/environ")
    deadline = time.monotonic() + 60
    while b"hugetlb" not in environment.read_bytes():
        assert time.monotonic() < deadline
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert errors.strip() == (
        f"deeprank train: {number.name}: stopped; run the same command again to "
        "continue."
    )
