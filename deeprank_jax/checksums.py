"""Checksums of the files of a folder, in the format of `sha256sum`."""

import hashlib
import pathlib
import re

from deeprank_jax import files

CHECKSUMS = "SHA256SUMS"
_MAX_BYTES = 2**24

_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def write_checksums(folder: pathlib.Path) -> None:
    """Writes `SHA256SUMS` of all other files once they are on disk.

    Raises:
      OSError: A file cannot be read, or the list cannot be written.
    """
    files.sync_all(folder)
    lines = [
        f"{file_digest(folder / name)}  {name}\n" for name in sorted(_names(folder))
    ]
    files.write_text(folder / CHECKSUMS, "".join(lines))


def read_checksums(folder: pathlib.Path) -> dict[str, str]:
    """Returns the checksums of a folder's files by their paths in it.

    Raises:
      OSError: The list cannot be read.
      ValueError: A line is not a checksum, or names a file outside the folder.
    """
    text = files.read_text(folder / CHECKSUMS, _MAX_BYTES, errors="replace")
    sums = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"the line {line[:80]!r} is not a checksum")
        name = pathlib.PurePosixPath(match[2])
        if name.is_absolute() or ".." in name.parts or str(name) != match[2]:
            raise ValueError(f"it names {match[2][:80]!r}, which is not in the folder")
        sums[match[2]] = match[1]
    return sums


def find_damage(folder: pathlib.Path) -> str | None:
    """Returns what is wrong with a folder that has checksums, None if nothing is.

    Each file must be listed, so that a list that was cut is noticed; hidden files,
    which e.g. a file manager adds, need not be.

    Raises:
      PermissionError: A file may not be read.
    """
    try:
        sums = read_checksums(folder)
        unlisted = {x for x in _names(folder) - sums.keys() if "/." not in f"/{x}"}
        if unlisted:
            return f"{CHECKSUMS} does not list {min(unlisted)}"
        for name, digest in sums.items():
            if file_digest(folder / name) != digest:
                return f"{name} has changed"
    except ValueError as error:
        return f"{CHECKSUMS}: {error}"
    except PermissionError:
        raise
    except OSError as error:
        path = pathlib.Path(error.filename or folder)
        name = path.relative_to(folder) if path.is_relative_to(folder) else path
        return f"{name}: {error.strerror}"
    return None


def file_digest(path: pathlib.Path) -> str:
    """Returns the SHA-256 of a file, as hexadecimal digits."""
    with files.open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _names(folder: pathlib.Path) -> set[str]:
    """Returns the paths of all files below a folder but the list."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in paths} - {CHECKSUMS}
