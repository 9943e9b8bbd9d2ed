"""A command starts anew with huge pages, where that can be of use, and once."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import types

import pytest

from deeprank_jax.cli import huge_pages
from deeprank_jax.distributed import signals

PLUGIN = """
import json, os, pathlib, signal, sys
blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
told = {
    "tunables": os.environ.get("GLIBC_TUNABLES", ""),
    "pid": os.getpid(),
    "words": sys.argv[1:],
    "blocked": sorted(blocked & {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}),
}
with pathlib.Path("told.jsonl").open("a") as file:
    file.write(json.dumps(told) + chr(10))
"""
SCRIPT = pathlib.Path(sys.executable).with_name("deeprank")
offered = pytest.mark.skipif(
    not huge_pages._are_offered(), reason="this system gives no huge pages on request"
)


@pytest.fixture
def offers(monkeypatch, tmp_path):
    """Returns a function that makes a system and counts the starts in a list."""
    starts = []
    monkeypatch.setattr(os, "execve", lambda *args: starts.append(args))
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "deeprank_jax.main", "-q"])
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)

    def offer(
        mode="always [madvise] never", version="glibc 2.36", main="deeprank_jax.main"
    ):
        (tmp_path / "enabled").write_text(mode)
        monkeypatch.setattr(huge_pages, "_KERNEL", tmp_path / "enabled")
        monkeypatch.setattr(os, "confstr", lambda name: version)
        module = types.ModuleType("__main__")
        module.__spec__ = types.SimpleNamespace(name=main)
        monkeypatch.setitem(sys.modules, "__main__", module)
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
    assert environment == {**os.environ, "GLIBC_TUNABLES": expected}


@pytest.mark.parametrize(
    "system",
    [
        dict(mode="[always] madvise never"),
        dict(mode="always madvise [never]"),
        dict(version="glibc 2.34"),
        dict(version=None),
        dict(version="musl 1.2"),
        dict(main="pytest.__main__"),
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
    lines = (folder / "told.jsonl").read_text().splitlines()
    told = [json.loads(line) for line in lines]
    assert {x["pid"] for x in told} == {process.pid}
    return told[-1]


@offered
@pytest.mark.slow
@pytest.mark.parametrize(
    "start",
    [[sys.executable, "-X", "utf8", "-m", "deeprank_jax.main"], [SCRIPT, "train"]],
    ids=["module", "script"],
)
def test_a_command_has_huge_pages(tmp_path, start):
    told = run(tmp_path, *start)
    assert told["tunables"] == "glibc.malloc.hugetlb=1"
    assert told["words"][0] == "train"
    assert "--config.plugins=plugin.py" in told["words"]
    assert told["blocked"] == []


@offered
@pytest.mark.slow
def test_a_command_leaves_the_variable_of_the_user(tmp_path):
    told = run(tmp_path, SCRIPT, "train", GLIBC_TUNABLES="glibc.malloc.hugetlb=0")
    assert told["tunables"] == "glibc.malloc.hugetlb=0"
