"""How do embeddings, ids and labels lie on disk, so that nothing is ever lost?

A folder holds `index.json`, the list of what is committed, and files that are written
once and never changed: a batch of embeddings (`.npy`) with its ids and labels
(`.json`), or the row numbers of what was deleted (`.npy`). A row's number counts the
rows of all batches in order, deleted ones too. What `index.json` does not list is not
there, and is removed by the next writer; files of other names are left alone.

One process writes at a time and holds a lock. Any number read, without one, what was
committed when they opened the folder.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import fcntl
import hashlib
import io
import json
import pathlib
import re
from typing import IO, Any

import numpy as np

from deeprank_jax import files
from deeprank_jax.errors import DataError

MANIFEST = "index.json"
_LOCK = ".lock"
_FORMAT = 1
_OWN = re.compile(r"(batch|deleted)-\d{8}\.(npy|json)|\..+\.tmp")
_READ_BYTES = 2**22


@dataclasses.dataclass(frozen=True)
class Entry:
    """A committed batch or deletion: its files' checksums by suffix."""

    name: str
    num_rows: int
    sha256: Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Manifest:
    """All that is committed, as `index.json` has it."""

    dim: int
    model_fingerprint: str
    metric: str
    # What was asked for, "auto" among it, and what is in use.
    asked_kind: str
    kind: str
    next_number: int = 0
    batches: tuple[Entry, ...] = ()
    deletions: tuple[Entry, ...] = ()
    format: int = _FORMAT

    @property
    def num_rows(self) -> int:
        """How many rows all batches have, deleted ones too."""
        return sum(batch.num_rows for batch in self.batches)

    @property
    def num_deleted(self) -> int:
        """How many rows are deleted."""
        return sum(deletion.num_rows for deletion in self.deletions)


class Store:
    """The committed rows of one folder."""

    def __init__(self, folder: pathlib.Path, *, writable: bool):
        """Opens a folder that `create` made.

        Args:
          folder: holds `index.json`.
          writable: whether to take the lock, and to clean up after a writer that died.

        Raises:
          DataError: there is no index, it is damaged, or another process writes.
        """
        self.folder = folder
        self._lock = None
        self.manifest = _read_manifest(folder)
        if writable:
            self._lock = _lock(folder)
            try:
                self.clean()
            except BaseException:
                self.close()
                raise

    @property
    def writable(self) -> bool:
        """Whether this is the writer."""
        return self._lock is not None

    def close(self) -> None:
        """Gives back the lock."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def append(
        self,
        embeddings: np.ndarray,
        ids: Sequence[str],
        labels: Sequence[str],
        *,
        kind: str,
    ) -> None:
        """Commits a batch.

        Args:
          embeddings: `[n, D]` float32.
          ids: `n` of them.
          labels: `n` of them.
          kind: what the index is from now on.

        Raises:
          DataError: it could not be written; nothing has changed.
        """
        names = json.dumps({"ids": list(ids), "labels": list(labels)}).encode()
        parts = {".npy": _npy(embeddings), ".json": [names]}
        with self._committing("batch", len(ids), parts) as (entry, manifest):
            batches = (*manifest.batches, entry)
            self._write_manifest(
                dataclasses.replace(manifest, batches=batches, kind=kind)
            )

    def delete(self, rows: np.ndarray) -> None:
        """Commits that rows are deleted.

        Args:
          rows: `[n]` int64 row numbers, none of them deleted before.

        Raises:
          DataError: it could not be written; nothing has changed.
        """
        parts = {".npy": _npy(rows)}
        with self._committing("deleted", len(rows), parts) as (entry, manifest):
            deletions = (*manifest.deletions, entry)
            self._write_manifest(dataclasses.replace(manifest, deletions=deletions))

    def embeddings(self, first: int = 0) -> Iterator[np.ndarray]:
        """Yields the embeddings `[n, D]` of each batch from the `first` on."""
        for batch in self.manifest.batches[first:]:
            yield self._array(batch)

    def names(self) -> tuple[list[str], list[str]]:
        """Returns the ids and the labels of all rows, deleted ones too."""
        ids: list[str] = []
        labels: list[str] = []
        for batch in self.manifest.batches:
            with self._checked(batch, ".json") as file:
                found = json.load(file)
            ids += found["ids"]
            labels += found["labels"]
        return ids, labels

    def deleted(self) -> np.ndarray:
        """Returns the rows that are deleted, `[n]` int64."""
        found = [self._array(entry) for entry in self.manifest.deletions]
        return np.concatenate([np.empty(0, np.int64), *found])

    def clean(self) -> None:
        """Reads what is committed, and removes what a writer left that is not."""
        self.manifest = _read_manifest(self.folder)
        entries = (*self.manifest.batches, *self.manifest.deletions)
        listed = {entry.name + suffix for entry in entries for suffix in entry.sha256}
        for path in self.folder.iterdir():
            if _OWN.fullmatch(path.name) and path.name not in listed:
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def try_writing(self) -> Iterator[bool]:
        """Tells whether a file that follows from all that is committed can be written.

        A reader can as long as nobody else writes or has written since it opened.
        """
        if self.writable:
            yield True
            return
        try:
            lock = _lock(self.folder)
        except DataError:
            yield False
            return
        with lock:
            yield self.manifest == _read_manifest(self.folder)

    @contextlib.contextmanager
    def _committing(
        self, stem: str, num_rows: int, parts: Mapping[str, Iterable[Any]]
    ) -> Iterator[tuple[Entry, Manifest]]:
        """Writes the files of an entry, which the body is to list in the manifest."""
        number = self.manifest.next_number
        name = f"{stem}-{number:08d}"
        try:
            with telling_what_failed(self.folder):
                sha256 = {
                    suffix: write_whole(self.folder / f"{name}{suffix}", content)
                    for suffix, content in parts.items()
                }
                manifest = dataclasses.replace(self.manifest, next_number=number + 1)
                yield Entry(name, num_rows, sha256), manifest
        except BaseException:
            # The file system knows whether the commit came before what went wrong.
            self.clean()
            raise

    def _write_manifest(self, manifest: Manifest) -> None:
        text = json.dumps(dataclasses.asdict(manifest), separators=(",", ":"))
        write_whole(self.folder / MANIFEST, [text.encode()])
        self.manifest = manifest

    def _array(self, entry: Entry) -> np.ndarray:
        with self._checked(entry, ".npy") as file:
            return np.load(file, allow_pickle=False)

    @contextlib.contextmanager
    def _checked(self, entry: Entry, suffix: str) -> Iterator[IO[bytes]]:
        """Opens a file whose checksum is the one that was committed."""
        path = self.folder / f"{entry.name}{suffix}"
        try:
            with path.open("rb") as file:
                is_whole = checksum(file) == entry.sha256[suffix]
                file.seek(0)
                if is_whole:
                    yield file
        except OSError as error:
            raise _damaged(path, str(error.strerror)) from error
        if not is_whole:
            raise _damaged(path, "its checksum is another")


def create(folder: pathlib.Path, manifest: Manifest) -> None:
    """Makes a folder of no rows.

    Args:
      folder: must not be there, or be empty.
      manifest: what the index is.

    Raises:
      DataError: there is something in the folder, or it cannot be written.
    """
    if (folder / MANIFEST).exists():
        raise DataError(
            f"{folder} is an index already; open it to add to it, or name another "
            "folder."
        )
    with telling_what_failed(folder):
        folder.mkdir(parents=True, exist_ok=True)
        # A creation that was cut off leaves no more than this.
        if any(not path.name.startswith(".") for path in folder.iterdir()):
            raise DataError(f"{folder} is not empty; name a new folder for the index.")
        text = json.dumps(dataclasses.asdict(manifest), separators=(",", ":"))
        write_whole(folder / MANIFEST, [text.encode()])
        files.sync_folder(folder.absolute().parent)


def write_whole(path: pathlib.Path, parts: Iterable[Any]) -> str:
    """Writes a file, whole or not at all, and waits until the disk has it.

    Args:
      path: where; what was there is replaced.
      parts: bytes, or arrays of them, one after another.

    Returns:
      The file's SHA-256.
    """
    digest = hashlib.sha256()
    with files.replacing(path) as file:
        for part in parts:
            file.write(part)
            digest.update(part)
    return digest.hexdigest()


def checksum(file: IO[bytes]) -> str:
    """Returns the SHA-256 of what is left of a file."""
    digest = hashlib.sha256()
    while part := file.read(_READ_BYTES):
        digest.update(part)
    return digest.hexdigest()


@contextlib.contextmanager
def telling_what_failed(folder: pathlib.Path) -> Iterator[None]:
    """Makes a full disk or the like an error of one sentence."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{folder} could not be written: {error.strerror}; it is as it was, so "
            "put that right (free some space, or allow writing) and do it again."
        ) from error


def _npy(array: np.ndarray) -> Iterator[Any]:
    header = io.BytesIO()
    array = np.ascontiguousarray(array)
    np.lib.format.write_array_header_1_0(
        header, np.lib.format.header_data_from_array_1_0(array)
    )
    yield header.getvalue()
    yield array.data


def _lock(folder: pathlib.Path) -> IO[bytes]:
    with telling_what_failed(folder):
        file = (folder / _LOCK).open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise DataError(
            f"{folder} is being written by another process; wait until it is done."
        ) from None
    return file


def _read_manifest(folder: pathlib.Path) -> Manifest:
    path = folder / MANIFEST
    try:
        fields = json.loads(path.read_bytes())
        if fields["format"] != _FORMAT:
            raise DataError(
                f"{path} has format {fields['format']}, this program reads format "
                f"{_FORMAT}; use the program that wrote it."
            )
        for name in ("batches", "deletions"):
            fields[name] = tuple(Entry(**entry) for entry in fields[name])
        return Manifest(**fields)
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"{folder} is no index, there is no {MANIFEST} in it; name an index, or "
            "create one there."
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        raise _damaged(path, f"it cannot be read ({error})") from error


def _damaged(path: pathlib.Path, why: str) -> DataError:
    return DataError(
        f"{path} is damaged, {why}; take it from a backup, or make the index anew."
    )
