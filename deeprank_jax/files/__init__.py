"""File names for people, bounded reads, and atomic, synced writes."""

from collections.abc import Iterator
import contextlib
import errno
import hashlib
import json
import os
import pathlib
import secrets
import shutil
import stat
import tempfile
from typing import IO

from deeprank_jax.errors import WriteError
from deeprank_jax.files.reading import MAX_TEXT as MAX_TEXT
from deeprank_jax.files.reading import check_file as check_file
from deeprank_jax.files.reading import is_inside as is_inside
from deeprank_jax.files.reading import open_file as open_file
from deeprank_jax.files.reading import parse_json as parse_json
from deeprank_jax.files.reading import read_bytes as read_bytes
from deeprank_jax.files.reading import read_json as read_json
from deeprank_jax.files.reading import read_text as read_text
from deeprank_jax.logs import escaped

_FORMULAS = ("=", "+", "-", "@", "\t", "\r")
_REMEDIES = {
    errno.ENOSPC: "free some disk space, or write to another disk",
    errno.EDQUOT: "free some of your disk quota, or write to another disk",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that you may write to",
    errno.ENOENT: "create its folder first",
    errno.EISDIR: "choose the name of a file, not of a folder",
    errno.ELOOP: "delete it",
    errno.ENXIO: "delete it",
    errno.EEXIST: "choose another name, as it is a file already",
}
# Errors of file systems that cannot be told to write to the disk.
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF)
# Bytes of a name beside which a suffix still fits into 255.
_LONG_NAME = 200
# Files and folders that are removed if the process is ended from outside.
_scratch: set[pathlib.Path] = set()


def as_text(path: str | os.PathLike[str]) -> str:
    r"""Returns a path or a part of it as text: bytes that are not UTF-8 as `\xe9`.

    Args:
      path: Path as the system names it, such bytes as surrogates.
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def absolute(path: str) -> str:
    """Returns a path for any working directory; "" stays."""
    return os.path.abspath(os.path.expanduser(path)) if path else ""


def printable(path: str | os.PathLike[str]) -> str:
    r"""Returns a path or a part of it for messages: also without control characters.

    Args:
      path: Path as the system names it.
    """
    return escaped(as_text(path))


def defused(text: str) -> str:
    """Returns a cell of a CSV that no spreadsheet takes for a formula.

    Args:
      text: Cell; an apostrophe is put before one that begins with `= + - @`, a tab or
        a carriage return, unless it is a number.
    """
    if not text.startswith(_FORMULAS):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def with_room(name: str) -> str:
    """Returns the name of a file, or a digest of it that leaves room for a suffix.

    Args:
      name: Name without folders.
    """
    encoded = os.fsencode(name)
    if len(encoded) <= _LONG_NAME:
        return name
    return hashlib.sha256(encoded).hexdigest()[:32]


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Opens a file for writing that replaces `path` once all of it is on disk.

    After an error `path` is as it was before.

    Raises:
      WriteError: The file cannot be written, e.g. because the disk is full.
    """
    path = pathlib.Path(path)
    scratch = path.with_name(f".{with_room(path.name)}.{secrets.token_hex(4)}.tmp")
    try:
        register_scratch(scratch)
        try:
            with scratch.open("xb") as file:
                yield file
                file.flush()
                _sync_descriptor(file.fileno())
            scratch.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                scratch.unlink()
            raise
        finally:
            unregister_scratch(scratch)
        sync(path.parent)
    except OSError as error:
        # Other names, and no number, are errors of other files in the caller's block.
        if error.errno is None or error.filename not in (None, os.fspath(scratch)):
            raise
        raise write_error(path, error) from error


@contextlib.contextmanager
def scratch_folder(
    parent: str | os.PathLike[str] | None = None, *, prefix: str = "deeprank_jax."
) -> Iterator[pathlib.Path]:
    """Creates a folder of an unpredictable name that is removed with the context.

    Args:
      parent: Folder to create it in; None for that of temporary files.
      prefix: Beginning of its name.

    Raises:
      OSError: It cannot be created.
    """
    folder = pathlib.Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    register_scratch(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        unregister_scratch(folder)


def register_scratch(path: pathlib.Path) -> None:
    """Adds a file or folder to those that `remove_scratch` removes."""
    _scratch.add(path)


def unregister_scratch(path: pathlib.Path) -> None:
    """Leaves a file or folder to `remove_scratch` no longer."""
    _scratch.discard(path)


def remove_scratch() -> None:
    """Removes all scratch files and folders of this process, right before its end."""
    for path in list(_scratch):
        with contextlib.suppress(OSError):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def sync_all(folder: pathlib.Path) -> None:
    """Waits until all files below a folder, and the folders, are on disk."""
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            sync(path)


def sync(path: pathlib.Path) -> None:
    """Waits until a file's content, or a folder's list of files, is on disk.

    Returns at once where the file system does not offer it.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _sync_descriptor(descriptor)
    finally:
        os.close(descriptor)


def _sync_descriptor(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def create_folder(folder: str | os.PathLike[str]) -> pathlib.Path:
    """Creates a folder and its parents if they do not exist, and returns it.

    Raises:
      WriteError: The folder cannot be created.
    """
    folder = pathlib.Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(folder, error) from error
    return folder


def append_text(path: pathlib.Path, text: str) -> None:
    """Appends to a UTF-8 text file, which is created if it does not exist.

    Raises:
      WriteError: It cannot be written, or is a link or no regular file.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags, 0o666)
        with os.fdopen(descriptor, "ab") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.ELOOP, "it is no regular file", os.fspath(path))
            file.write(text.encode())
            file.flush()
            _sync_descriptor(descriptor)
    except OSError as error:
        raise write_error(path, error) from error


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a UTF-8 text file as `replacing` does."""
    with replacing(path) as file:
        file.write(text.encode())


def write_json(path: str | os.PathLike[str], content: object) -> None:
    """Writes an indented JSON file as `replacing` does."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_error(path: pathlib.Path, cause: OSError) -> WriteError:
    """Returns the error of a path that cannot be written, with the remedy.

    Args:
      path: Path that the user knows.
      cause: Error of the system.
    """
    remedy = _REMEDIES.get(cause.errno or 0, "choose another place")
    error = WriteError(
        f"{printable(path)} cannot be written ({cause.strerror or cause}): {remedy}."
    )
    error.errno, error.strerror = cause.errno, cause.strerror
    return error
