"""Checksums of files that are written once and believed later.

Those of a folder are listed in the format of `sha256sum`. A JSON object holds one of
its other entries, a table one of its columns.
"""

from collections.abc import Mapping, Sequence
import hashlib
import json
import pathlib
import re
from typing import Any, Self

import numpy as np

from deeprank_jax import files
from deeprank_jax.files.arrays import read_npz

CHECKSUMS = "SHA256SUMS"
_MAX_BYTES = 2**24
# Of a run's config and results, listed in its workdir.
RUN_CHECKSUMS = "run.sha256"
# Entry of a JSON object with the checksum of the others.
_ENTRY = "sha256"

_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


def write_checksums(folder: pathlib.Path) -> None:
    """Writes `SHA256SUMS` of all other files once they are on disk.

    Raises:
      OSError: A file cannot be read, or the list cannot be written.
    """
    files.sync_all(folder)
    list_checksums(folder / CHECKSUMS, sorted(_names(folder)))


def list_checksums(path: pathlib.Path, names: Sequence[str]) -> None:
    """Writes a list of the checksums of files beside it.

    Args:
      path: Path of the list.
      names: Paths of the files, relative to the folder of the list.

    Raises:
      OSError: A file cannot be read, or the list cannot be written.
    """
    lines = [f"{file_digest(path.parent / name)}  {name}\n" for name in names]
    files.write_text(path, "".join(lines))


def check_listed(
    path: pathlib.Path,
    list_name: str = RUN_CHECKSUMS,
    folder: pathlib.Path | None = None,
) -> None:
    """Checks a file against the list beside it, if that lists the file.

    Args:
      path: Path of the file.
      list_name: Name of the list.
      folder: Folder of the list; None for that of the file.

    Raises:
      ValueError: The file has changed or is missing, or the list cannot be read.
    """
    folder = path.parent if folder is None else folder
    name = path.relative_to(folder).as_posix()
    try:
        sums = read_checksums(folder, list_name)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ValueError(f"{list_name} cannot be read: {error.strerror}") from error
    try:
        if name in sums and file_digest(path) != sums[name]:
            raise ValueError(f"it has changed since {list_name} was written")
    except OSError as error:
        raise ValueError(f"{list_name} lists it: {error.strerror}") from error


def read_checksums(folder: pathlib.Path, list_name: str = CHECKSUMS) -> dict[str, str]:
    """Returns the checksums of a folder's files by their paths in it.

    Raises:
      OSError: The list cannot be read.
      ValueError: A line is not a checksum, or names a file outside the folder.
    """
    text = files.read_text(folder / list_name, _MAX_BYTES, errors="replace")
    sums = {}
    for number, line in enumerate(text.splitlines(), 1):
        match = _LINE.fullmatch(line)
        if match is None:
            # Not shown, as a stranger's list may be a link to another file.
            raise ValueError(f"line {number} is not a checksum")
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


def read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the arrays of an `.npz` file by name; it has a checksum of each.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: The file is damaged, or cannot be read.
    """
    try:
        return read_npz(path)
    except FileNotFoundError:
        raise
    # Damaged archives fail in many ways, even with a MemoryError.
    except Exception as error:
        raise ValueError(str(error) or type(error).__name__) from error


def seal_json(content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a JSON object with one more entry, the checksum of the others.

    Args:
      content: Entries of the object.
    """
    return {**content, _ENTRY: _digest_json(content)}


def unseal_json(content: Any) -> dict[str, Any]:
    """Returns the entries of a JSON object without the checksum.

    An object of an earlier version has none; the caller refuses unknown entries.

    Raises:
      ValueError: It is no object, or has changed since it was sealed.
    """
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object")
    entries = {name: value for name, value in content.items() if name != _ENTRY}
    if _ENTRY in content and content[_ENTRY] != _digest_json(entries):
        raise ValueError("it has changed since it was written")
    return entries


class TableDigest:
    """Checksum of a table, however its rows are divided into parts.

    Attributes:
      KEY: Key of a Parquet file's metadata that holds it.
    """

    KEY = b"sha256"

    def __init__(self, metadata: str = ""):
        """Begins with no row.

        Args:
          metadata: Text that belongs to the table, e.g. the identity of a model.
        """
        self._metadata = metadata
        self._columns: dict[str, Any] = {}

    def add(self, columns: Mapping[str, Sequence[str] | np.ndarray]) -> Self:
        """Adds the next rows, and returns itself.

        Args:
          columns: Texts or numbers of each column by its name.
        """
        for name, values in columns.items():
            if not isinstance(values, np.ndarray):
                texts = list(map(str, values))
                sizes = np.fromiter(map(len, texts), np.int64, len(texts))
                self._update(f"{name} sizes", sizes.data)
                self._update(name, "".join(texts).encode("utf-8", "surrogatepass"))
            else:
                self._update(name, np.ascontiguousarray(values).data)
        return self

    def add_batch(self, batch: Any) -> None:
        """Adds the rows of a `pyarrow.RecordBatch` of texts and numbers."""
        columns = zip(batch.schema.names, batch.columns, strict=True)
        self.add(
            {
                name: x.to_pylist()
                if str(x.type) == "string"
                else x.to_numpy(zero_copy_only=False)
                for name, x in columns
            }
        )

    def check(self, metadata: Mapping[bytes, bytes] | None) -> None:
        """Checks the checksum against the one in a file, if it has one.

        Args:
          metadata: Metadata of the Parquet file.

        Raises:
          OSError: The table has changed since it was written.
        """
        written = (metadata or {}).get(self.KEY)
        if written not in (None, self.hexdigest().encode()):
            raise OSError("it has changed since it was written")

    def hexdigest(self) -> str:
        """Returns the checksum, as hexadecimal digits."""
        parts = {name: digest.hexdigest() for name, digest in self._columns.items()}
        return _digest_json({"metadata": self._metadata, "columns": parts})

    def _update(self, name: str, content: bytes | memoryview) -> None:
        self._columns.setdefault(name, hashlib.sha256()).update(content)


def _digest_json(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _names(folder: pathlib.Path) -> set[str]:
    """Returns the paths of all files below a folder but the list."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix() for path in paths} - {CHECKSUMS}
