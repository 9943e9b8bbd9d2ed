"""Locks of outputs, also where the file system has no `flock`."""

import errno
import fcntl
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading

import pytest

from deeprank_jax import errors, files
from deeprank_jax.files import locks

ROOT = pathlib.Path(__file__).parents[2]
# Errors of `flock` on file systems that do not have it.
UNSUPPORTED = [
    errno.ENOLCK,
    errno.ENOTSUP,
    errno.ENOSYS,
    errno.EINVAL,
    errno.EIO,
    errno.EBADF,
]
HOLDER = """
import errno, fcntl, pathlib, sys, time
from deeprank_jax.files import locks
if sys.argv[2] == "without":
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")
    fcntl.flock = flock
lock = locks.beside(pathlib.Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def hold(out):
    """Returns a function that starts a process which holds the lock of `out`."""
    processes = []

    def start(kind="with"):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(out), kind],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        processes.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(params=UNSUPPORTED, ids=errno.errorcode.get)
def without_flock(request, monkeypatch):
    def flock(*_):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", flock)


def test_the_second_writer_is_told_of_the_first(out, hold):
    process = hold()
    sentence = (
        f"Process {process.pid} is writing {out}: wait until it has ended, or give "
        "another --out."
    )
    with pytest.raises(locks.LockedError) as refused:
        locks.beside(out)
    assert str(refused.value) == sentence


def test_a_lock_ends_with_its_process(out, hold, tmp_path):
    process = hold()
    process.send_signal(signal.SIGKILL)
    process.wait()
    with locks.beside(out), pytest.raises(locks.LockedError, match="This process"):
        locks.beside(out)
    locks.beside(out).release()
    assert not list(tmp_path.iterdir())


def test_a_lock_can_be_waited_for(out):
    first, taken = locks.beside(out), threading.Event()

    def wait():
        with locks.beside(out, wait=True):
            taken.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert not taken.wait(0.5)
    first.release()
    thread.join(10)
    assert taken.is_set()


def test_the_file_of_a_lock_that_was_just_released_is_not_taken(out, monkeypatch):
    """Else a third writer would create a new file, and lock that."""
    call, times = fcntl.flock, []

    def flock(descriptor, operation):
        times.append(descriptor)
        if len(times) == 1:  # Its holder ends between opening and locking.
            (out.parent / ".out.lock").unlink()
        return call(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with locks.beside(out):
        assert len(times) == 2
        with pytest.raises(locks.LockedError):
            locks.beside(out)


@pytest.mark.parametrize("kind", ["symlink", "hardlink", "pipe", "folder"])
def test_links_and_pipes_are_not_followed(out, tmp_path, kind):
    target, lock = tmp_path / "target", tmp_path / ".out.lock"
    target.write_text("precious")
    make = {
        "symlink": lambda: lock.symlink_to(target),
        "hardlink": lambda: lock.hardlink_to(target),
        "pipe": lambda: os.mkfifo(lock),
        "folder": lock.mkdir,
    }
    make[kind]()
    with pytest.raises(errors.WriteError, match=r"\.out\.lock cannot be written"):
        locks.beside(out)
    assert target.read_text() == "precious"


def test_a_lock_needs_a_folder_to_write_to(tmp_path):
    with pytest.raises(errors.WriteError, match="create its folder first"):
        locks.beside(tmp_path / "missing" / "out")


def test_one_writer_without_flock(out, tmp_path, without_flock):
    with locks.beside(out):
        with pytest.raises(locks.LockedError) as refused:
            locks.beside(out)
        assert str(refused.value) == (
            f"This process is writing {out}: wait until it has ended, or give another "
            f"--out. If it has ended, delete {tmp_path / '.out.lock.owner'}."
        )
    locks.beside(out).release()
    assert not list(tmp_path.iterdir())


def test_the_lock_of_a_killed_process_is_taken_over(out, hold, tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    process = hold("without")
    with pytest.raises(locks.LockedError, match=f"Process {process.pid} is writing"):
        locks.beside(out)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with locks.beside(out), pytest.raises(locks.LockedError, match="This process"):
        locks.beside(out)
    assert not list(tmp_path.iterdir())


def write_owner(tmp_path, **changes):
    owner = vars(locks._Owner.here()) | changes
    (tmp_path / ".out.lock.owner").write_text(json.dumps(owner))


@pytest.mark.parametrize(
    "changes",
    [{"started": "1"}, {"boot": "another"}, {"pid": 2**22 + 1}],
    ids=["number used again", "started anew", "ended"],
)
def test_a_process_that_is_gone_is_known_by_its_start(
    out, tmp_path, monkeypatch, changes
):
    monkeypatch.setattr(fcntl, "flock", refuse_flock)
    write_owner(tmp_path, **changes)
    locks.beside(out).release()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("owner", "who"),
    [
        ({"host": "far", "pid": 12, "boot": "b", "started": "1"}, "Process 12 on far"),
        ({}, "Another process"),
    ],
)
def test_the_lock_of_another_host_stays(out, tmp_path, monkeypatch, owner, who):
    monkeypatch.setattr(fcntl, "flock", refuse_flock)
    assert socket.gethostname() != "far"
    path = tmp_path / ".out.lock.owner"
    path.write_text(json.dumps(owner))
    with pytest.raises(locks.LockedError, match=f"{who} is writing.*delete {path}"):
        locks.beside(out)
    assert json.loads(path.read_text()) == owner


def test_a_lock_that_was_taken_over_meanwhile_is_given_back(out, tmp_path, monkeypatch):
    """Two processes notice at once that a third is gone."""
    monkeypatch.setattr(fcntl, "flock", refuse_flock)
    gone = locks._Owner.here()
    write_owner(tmp_path, pid=1234, host="far")  # By now of another process.
    monkeypatch.setattr(locks._Owner, "is_gone", property(lambda owner: True))
    read = locks._read_owner
    answers = iter([gone])
    monkeypatch.setattr(
        locks, "_read_owner", lambda path: next(answers, None) or read(path)
    )
    with pytest.raises(locks.LockedError, match="Process 1234 on far"):
        locks.beside(out)
    assert [x.name for x in tmp_path.iterdir()] == [".out.lock.owner"]


def refuse_flock(*_):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


@pytest.mark.parametrize(
    "number", [errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF]
)
def test_a_file_system_that_cannot_sync_is_written_to(tmp_path, monkeypatch, number):
    def fsync(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    files.write_text(tmp_path / "file", "whole")
    files.sync_all(tmp_path)
    assert (tmp_path / "file").read_text() == "whole"


def test_scratch_goes_with_a_process_that_is_ended(tmp_path):
    with files.scratch_folder(tmp_path) as folder:
        (folder / "part").write_text("x")
        with locks.beside(tmp_path / "out"), files.replacing(tmp_path / "y") as file:
            file.write(b"half")
            assert len(list(tmp_path.iterdir())) == 3
            files.remove_scratch()
            assert not list(tmp_path.iterdir())
            (tmp_path / file.name).touch()


def test_an_output_with_a_long_name_has_a_lock(tmp_path):
    paths = [tmp_path / f"{'x' * 240}{i}.parq" for i in range(2)]
    with locks.beside(paths[0]), locks.beside(paths[1]):
        with pytest.raises(locks.LockedError, match=paths[0].name):
            locks.beside(paths[0])
        assert len(list(tmp_path.iterdir())) == 2
    assert not list(tmp_path.iterdir())
