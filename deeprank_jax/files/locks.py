"""Locks of outputs: one writer at a time, of this host or of another.

A lock is a file in or beside the output, locked by `flock`, which ends with its process
however that ends. File systems without `flock` have in its place a file that only one
process can create; one that a process of this host left behind is taken over.
"""

from collections.abc import Callable
import dataclasses
import errno
import fcntl
import json
import os
import pathlib
import secrets
import socket
import stat
import time
from typing import Self

from deeprank_jax.errors import UserError
from deeprank_jax.files import (
    register_scratch,
    unregister_scratch,
    with_room,
    write_error,
)

# `flock` is not supported is all else, e.g. ENOLCK, ENOTSUP, ENOSYS, EINVAL and EIO.
_HELD = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES)
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_POLL_SECONDS = 0.2
_BOOT_ID = pathlib.Path("/proc/sys/kernel/random/boot_id")
_MAX_OWNER_BYTES = 1000


class LockedError(UserError):
    """Another process writes the same output."""


@dataclasses.dataclass(frozen=True)
class _Owner:
    """Process that holds a lock.

    Attributes:
      host: Name of its host.
      boot: Identifier of the host's last start; "" if the system has none.
      pid: Number of the process on that host.
      started: Time at which it was started, as the system counts it; "" if unknown.
    """

    host: str
    boot: str
    pid: int
    started: str

    @classmethod
    def here(cls) -> Self:
        """Returns this process."""
        pid = os.getpid()
        return cls(socket.gethostname(), _read_boot_id(), pid, _start_of(pid))

    @property
    def is_gone(self) -> bool:
        """Returns True if the process has certainly ended; False on other hosts."""
        if self.host != socket.gethostname():
            return False
        if self.boot != _read_boot_id():
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass
        return self.started != _start_of(self.pid)

    def __str__(self) -> str:
        """Returns the process as the subject of a sentence."""
        if self == _Owner.here():
            return "This process"
        place = "" if self.host == socket.gethostname() else f" on {self.host}"
        return f"Process {self.pid}{place}"


class Lock:
    """Lock of an output, held from its creation to `release`."""

    def __init__(
        self,
        path: pathlib.Path,
        refusal: Callable[[str], str],
        *,
        wait: bool = False,
    ):
        """Takes the lock.

        Args:
          path: Path of the lock's file, whose folder exists.
          refusal: Function from the subject of a sentence, e.g. "Another process", to
            the sentence with the remedy.
          wait: True to wait until the other process has ended.

        Raises:
          LockedError: Another process holds it.
          WriteError: The file cannot be created, or is a link.
        """
        self._path = path.absolute()
        self._descriptor: int | None = None
        # Used where `flock` is not supported.
        self._exclusive = self._path.with_name(f"{path.name}.owner")
        self._is_exclusive = False
        while not self._take():
            if not wait:
                raise LockedError(self._refuse(refusal))
            time.sleep(_POLL_SECONDS)

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Releases the lock."""
        self.release()

    def release(self) -> None:
        """Releases the lock, and removes its file."""
        path = self._exclusive if self._is_exclusive else self._path
        if self._descriptor is not None or self._is_exclusive:
            # While it is held, so that it is the file of no other process.
            path.unlink(missing_ok=True)
            unregister_scratch(path)
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor, self._is_exclusive = None, False

    def _take(self) -> bool:
        """Returns True once this process holds the lock, False if another does."""
        while True:
            descriptor = _open(self._path)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(descriptor)
                if error.errno in _HELD:
                    return False
                self._path.unlink(missing_ok=True)
                return self._take_exclusive()
            if _is_at(self._path, descriptor):
                break
            # Its holder has just removed it.
            os.close(descriptor)
        self._descriptor = descriptor
        register_scratch(self._path)
        _write_owner(descriptor)
        return True

    def _take_exclusive(self) -> bool:
        """Creates the file that only one process can create; False if it exists."""
        try:
            descriptor = os.open(self._exclusive, _FLAGS | os.O_EXCL, 0o666)
        except FileExistsError:
            owner = _read_owner(self._exclusive)
            return bool(owner and owner.is_gone and self._take_over(owner))
        except OSError as error:
            raise write_error(self._exclusive, error) from error
        self._is_exclusive = True
        register_scratch(self._exclusive)
        _write_owner(descriptor)
        os.close(descriptor)
        return True

    def _take_over(self, owner: _Owner) -> bool:
        """Replaces the file of a process that has ended, unless another just did."""
        moved = self._exclusive.with_name(
            f"{self._exclusive.name}.{secrets.token_hex(4)}"
        )
        try:
            self._exclusive.rename(moved)
        except FileNotFoundError:
            return self._take_exclusive()
        if _read_owner(moved) != owner:  # Moved away from the process that has it now.
            moved.rename(self._exclusive)
            return False
        moved.unlink()
        return self._take_exclusive()

    def _refuse(self, refusal: Callable[[str], str]) -> str:
        """Returns the sentence about the process that holds the lock."""
        owner = _read_owner(self._path)
        if owner is not None:
            return refusal(str(owner))
        if not self._exclusive.exists():
            return refusal("Another process")
        owner = _read_owner(self._exclusive)
        sentence = refusal(str(owner or "Another process"))
        return f"{sentence} If it has ended, delete {self._exclusive}."


def beside(path: pathlib.Path, *, wait: bool = False) -> Lock:
    """Takes the lock of a file or folder, whose own folder exists.

    Args:
      path: Path of the output, which need not exist.
      wait: True to wait until the other process has ended.

    Raises:
      LockedError: Another process writes it.
      WriteError: The lock cannot be created.
    """
    return Lock(
        _beside(path),
        lambda who: (
            f"{who} is writing {path}: wait until it has ended, or give another --out."
        ),
        wait=wait,
    )


def _beside(path: pathlib.Path) -> pathlib.Path:
    """Returns the path of a lock; a name with little room for more is shortened."""
    return path.with_name(f".{with_room(path.name)}.lock")


def inside(folder: pathlib.Path, option: str) -> Lock:
    """Takes the lock of a folder that exists, with a file in it.

    Args:
      folder: Folder of the output.
      option: Option of the command line that names the folder.

    Raises:
      LockedError: Another process writes to it.
      WriteError: The lock cannot be created.
    """
    return Lock(
        folder / ".lock",
        lambda who: (
            f"{who} is writing {folder}: wait until it has ended, or give another "
            f"{option}."
        ),
    )


def _open(path: pathlib.Path) -> int:
    """Opens a lock's file, created if it is missing, without following a link."""
    try:
        descriptor = os.open(path, _FLAGS, 0o666)
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_nlink <= 1:
            return descriptor
        os.close(descriptor)
        raise OSError(errno.ELOOP, "it is a link, or no regular file")
    except OSError as error:
        raise write_error(path, error) from error


def _is_at(path: pathlib.Path, descriptor: int) -> bool:
    """Returns whether an open file is still the one at a path."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _write_owner(descriptor: int) -> None:
    """Names this process in a lock's file, for the sentence of the next one."""
    text = json.dumps(dataclasses.asdict(_Owner.here())).encode()
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text, 0)
    except OSError:  # E.g. a full disk; the lock holds all the same.
        pass


def _read_owner(path: pathlib.Path) -> _Owner | None:
    """Returns the process that a lock's file names; None if it names none."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fields = json.loads(os.read(descriptor, _MAX_OWNER_BYTES))
        finally:
            os.close(descriptor)
        host, boot, pid, started = (
            fields[name] for name in ("host", "boot", "pid", "started")
        )
        return _Owner(str(host), str(boot), int(pid), str(started))
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return None


def _read_boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


def _start_of(pid: int) -> str:
    """Returns the time at which a process was started; "" if it is unknown."""
    try:
        line = pathlib.Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return ""
    # The name of the program, in parentheses, may hold blanks.
    fields = line.rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 else ""
