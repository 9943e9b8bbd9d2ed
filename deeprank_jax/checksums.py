"""Checksums of the files of a folder, in the format of `sha256sum`."""

import hashlib
import pathlib
import re

from deeprank_jax import files

CHECKSUMS = "SHA256SUMS"

_LINE = re.compile(r"([0-9a-f]{64})  (.+)")
# A comment to `sha256sum`; without it the list has been cut.
_END = re.compile(r"# (\d+) files")


def write_checksums(folder: pathlib.Path, *, counted: bool = True) -> None:
    """Writes `SHA256SUMS` of all other files once they are on disk.

    Args:
      folder: Folder with the files.
      counted: True to end the list with their number, which `find_damage` needs.

    Raises:
      OSError: A file cannot be read, or the list cannot be written.
    """
    files.sync_all(folder)
    lines = [
        f"{file_digest(path)}  {path.relative_to(folder).as_posix()}\n"
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != CHECKSUMS
    ]
    if counted:
        lines.append(f"# {len(lines)} files\n")
    files.write_text(folder / CHECKSUMS, "".join(lines))


def read_checksums(folder: pathlib.Path) -> dict[str, str]:
    """Returns the checksums of a folder's files by their paths in it.

    Raises:
      ValueError: A line is not a checksum.
    """
    text = (folder / CHECKSUMS).read_text(encoding="utf-8", errors="replace")
    sums = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is not None:
            sums[match[2]] = match[1]
        elif _END.fullmatch(line) is None:
            raise ValueError(f"the line {line[:80]!r} is not a checksum")
    return sums


def find_damage(folder: pathlib.Path) -> str | None:
    """Returns what is wrong with a folder that has checksums, None if nothing is.

    Raises:
      PermissionError: A file may not be read.
    """
    try:
        text = (folder / CHECKSUMS).read_text(encoding="utf-8", errors="replace")
        sums = read_checksums(folder)
        end = _END.fullmatch((text.splitlines() or [""])[-1])
        if end is None or int(end[1]) != len(sums):
            return f"{CHECKSUMS} has been cut"
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
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
