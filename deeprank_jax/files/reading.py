"""Bounded reading of files that others wrote.

Only regular files are read, and none larger than a limit: a named pipe would wait for
ever, and a device or a sparse file fill the memory.
"""

import io
import json
import os
import stat
from typing import Any

from deeprank_jax.errors import ReadError
from deeprank_jax.logs import escaped

_MIB = 2**20
# Limits in bytes: of a description such as `model.json`, and of a list or table.
MAX_JSON, MAX_TEXT = 16 * _MIB, 1024 * _MIB
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

Path = str | os.PathLike[str]


def open_file(path: Path, limit: int | None = None) -> io.BufferedReader:
    """Opens a regular file for reading.

    Args:
      path: Path of the file.
      limit: Largest size in bytes; None for any.

    Raises:
      ReadError: It is no regular file, or is larger.
      OSError: It does not exist, or may not be read.
    """
    descriptor, _ = _open(path, limit)
    return os.fdopen(descriptor, "rb")


def check_file(path: Path, limit: int | None = None) -> None:
    """Checks a file that a library opens by its path.

    Args:
      path: Path of the file.
      limit: Largest size in bytes; None for any.

    Raises:
      ReadError: It is no regular file, or is larger.
      OSError: It does not exist.
    """
    _check(path, _stat(path), limit)


def is_inside(path: Path, folder: Path) -> bool:
    """Returns whether a path, with its links followed, lies in a folder."""
    real = os.path.realpath(path)
    return os.path.commonpath([real, os.path.realpath(folder)]) == os.path.realpath(
        folder
    )


def read_bytes(path: Path, limit: int) -> bytes:
    """Returns the content of a regular file.

    Args:
      path: Path of the file.
      limit: Largest size in bytes.

    Raises:
      ReadError: It is no regular file, or is larger.
      OSError: It does not exist, or cannot be read.
    """
    descriptor, size = _open(path, limit)
    try:
        content = os.read(descriptor, size + 1)
        if len(content) == size:
            return content
        # The file is being written, or the system returned less than it has.
        parts = [content]
        while part := os.read(descriptor, _MIB):
            parts.append(part)
            size = sum(map(len, parts))
            if size > limit:
                raise _too_large(path, size, limit)
        return b"".join(parts)
    finally:
        os.close(descriptor)


def read_text(
    path: Path,
    limit: int = MAX_TEXT,
    *,
    encoding: str = "utf-8",
    errors: str = "strict",
) -> str:
    """Returns the content of a regular text file, with its lines ended by newlines.

    Args:
      path: Path of the file.
      limit: Largest size in bytes.
      encoding: Encoding of the text.
      errors: Treatment of bytes that the encoding lacks, as for `bytes.decode`.

    Raises:
      ReadError: It is no regular file, or is larger.
      OSError: It does not exist, or cannot be read.
      UnicodeDecodeError: It is no text of this encoding.
    """
    content = io.BytesIO(read_bytes(path, limit))
    return io.TextIOWrapper(content, encoding=encoding, errors=errors).read()


def read_json(path: Path, limit: int = MAX_JSON) -> Any:
    """Returns the content of a JSON file.

    Args:
      path: Path of the file.
      limit: Largest size in bytes.

    Raises:
      ReadError: It is no regular file, or is larger.
      OSError: It does not exist, or cannot be read.
      ValueError: It is no JSON.
    """
    return parse_json(read_bytes(path, limit))


def parse_json(content: str | bytes) -> Any:
    """Returns the value that a JSON text describes.

    Raises:
      ValueError: It is no JSON, or nested too deeply.
    """
    try:
        return json.loads(content)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _open(path: Path, limit: int | None) -> tuple[int, int]:
    """Returns a descriptor of a regular file, and its size."""
    # Not even opened if it is a device, for which that can be an action.
    _check(path, _stat(path), limit)
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    descriptor = os.open(path, flags)
    try:
        # Again, as another file may have taken its place.
        status = os.fstat(descriptor)
        _check(path, status, limit)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, status.st_size


def _stat(path: Path) -> os.stat_result:
    try:
        return os.stat(path)
    except ValueError as error:  # A name with a null character.
        raise _error(path, str(error), "correct the name") from error


def _check(path: Path, status: os.stat_result, limit: int | None) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise _error(path, f"{kind}, not a file", "remove it or leave it out")
    if limit is not None and status.st_size > limit:
        raise _too_large(path, status.st_size, limit)


def _too_large(path: Path, size: int, limit: int) -> ReadError:
    reason = f"{size:,} bytes, more than the limit of {limit:,}"
    return _error(path, reason, "make it smaller, or leave it out")


def _error(path: Path, reason: str, remedy: str) -> ReadError:
    name = escaped(os.fsencode(path).decode("utf-8", "backslashreplace"))
    error = ReadError(f"{name} is {reason}; {remedy}.")
    error.strerror, error.filename = reason, os.fspath(path)
    return error
