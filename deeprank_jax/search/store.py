"""Durable storage of embeddings, ids and labels in a folder.

`index.json` lists the committed files, which are written once and never changed: a
batch of embeddings (`.npy`) with its ids and labels (`.json`), or the row numbers of a
deletion (`.npy`). A row's number counts the rows of all batches in order, deleted ones
too. The next writer removes files of a batch or deletion that `index.json` does not
list; files of other names stay.

One process writes at a time and holds a lock. Readers need none, and see the rows that
were committed when they opened the folder.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import hashlib
import io
import json
import pathlib
import re
from typing import IO

import numpy as np

from deeprank_jax import checksums, files
from deeprank_jax.errors import ArtifactError, WriteError
from deeprank_jax.files import locks
from deeprank_jax.files.arrays import check_npy
from deeprank_jax.search import manifests
from deeprank_jax.search.manifests import Entry as Entry
from deeprank_jax.search.manifests import Manifest as Manifest

MANIFEST = "index.json"
_LOCK = ".lock"
_STORE_FILE = re.compile(r"(batch|deleted)-\d{8}\.(npy|json)|\..+\.tmp")
_READ_BYTES = 2**22

Buffer = bytes | memoryview


class Store:
    """The committed rows of one folder."""

    def __init__(
        self,
        folder: pathlib.Path,
        *,
        writable: bool,
        lock: locks.Lock | None = None,
    ):
        """Opens a folder that `create` made.

        Args:
          folder: Folder with `index.json`.
          writable: True to take the lock, and to clean up after a writer that died.
          lock: Lock of the folder if it is held already; None to take it.

        Raises:
          ArtifactError: There is no index, it is damaged, or another process writes.
        """
        self.folder = folder
        self._lock = None
        self.manifest = _read_manifest(folder)
        if writable:
            self._lock = lock or _lock(folder)
            try:
                self.clean()
            except BaseException:
                self.close()
                raise

    @property
    def writable(self) -> bool:
        """Returns True for the writer."""
        return self._lock is not None

    def close(self) -> None:
        """Releases the lock."""
        if self._lock is not None:
            self._lock.release()
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
          ids: Ids of the `n` rows.
          labels: Labels of the `n` rows.
          kind: Kind of the index from now on.

        Raises:
          ArtifactError: The batch cannot be written; nothing has changed.
        """
        names = json.dumps({"ids": list(ids), "labels": list(labels)}).encode()
        parts = {".npy": _npy(embeddings), ".json": [names]}
        with self._committing("batch", len(ids), parts) as (entry, manifest):
            batches = (*manifest.batches, entry)
            self._write_manifest(
                dataclasses.replace(manifest, batches=batches, kind=kind)
            )

    def delete(self, rows: np.ndarray) -> None:
        """Commits the deletion of rows.

        Args:
          rows: `[n]` int64, numbers of rows that are not deleted yet.

        Raises:
          ArtifactError: The deletion cannot be written; nothing has changed.
        """
        parts = {".npy": _npy(rows)}
        with self._committing("deleted", len(rows), parts) as (entry, manifest):
            deletions = (*manifest.deletions, entry)
            self._write_manifest(dataclasses.replace(manifest, deletions=deletions))

    def embeddings(self, first: int = 0) -> Iterator[np.ndarray]:
        """Yields the embeddings `[n, D]` of each batch, starting with the `first`."""
        for batch in self.manifest.batches[first:]:
            rows = self._array(batch, (batch.num_rows, self.manifest.dim), "float32")
            if not np.isfinite(rows.sum()):
                path = self.folder / f"{batch.name}.npy"
                raise _damaged(path, "it has rows that are not finite")
            yield rows

    def names(self) -> tuple[list[str], list[str]]:
        """Returns the ids and the labels of all rows, deleted ones too."""
        ids: list[str] = []
        labels: list[str] = []
        for batch in self.manifest.batches:
            with self._checked(batch, ".json") as file:
                names = manifests.parse_names(file.read(), batch)
            ids += names["ids"]
            labels += names["labels"]
        return ids, labels

    def deleted(self) -> np.ndarray:
        """Returns the numbers of the deleted rows, `[n]` int64."""
        deletions = [
            self._array(entry, (entry.num_rows,), "int64")
            for entry in self.manifest.deletions
        ]
        rows = np.concatenate([np.empty(0, np.int64), *deletions])
        is_row = (rows >= 0) & (rows < self.manifest.num_rows)
        if not is_row.all() or len(np.unique(rows)) < len(rows):
            raise _damaged(self.folder, "it deletes rows that it does not have")
        return rows

    def clean(self) -> None:
        """Reads the manifest again, and removes files that it does not list."""
        self.manifest = _read_manifest(self.folder)
        entries = (*self.manifest.batches, *self.manifest.deletions)
        listed = {entry.name + suffix for entry in entries for suffix in entry.sha256}
        for path in self.folder.iterdir():
            if _STORE_FILE.fullmatch(path.name) and path.name not in listed:
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def try_writing(self) -> Iterator[bool]:
        """Gives True if a file derived from all committed rows may be written.

        A reader may write one if no process writes, or has written since it opened.
        """
        if self.writable:
            yield True
            return
        try:
            lock = _lock(self.folder)
        except ArtifactError:
            yield False
            return
        with lock:
            yield self.manifest == _read_manifest(self.folder)

    @contextlib.contextmanager
    def _committing(
        self, stem: str, num_rows: int, parts: Mapping[str, Iterable[Buffer]]
    ) -> Iterator[tuple[Entry, Manifest]]:
        """Writes the files of an entry, which the body then lists in the manifest."""
        number = self.manifest.next_number
        name = f"{stem}-{number:08d}"
        try:
            with _writing(self.folder):
                sha256 = {
                    suffix: _write(self.folder / f"{name}{suffix}", content)
                    for suffix, content in parts.items()
                }
                manifest = dataclasses.replace(self.manifest, next_number=number + 1)
                yield Entry(name, num_rows, sha256), manifest
        except BaseException:
            # The error may have come after the commit: the file system decides.
            self.clean()
            raise

    def _write_manifest(self, manifest: Manifest) -> None:
        _write(self.folder / MANIFEST, [_encode(manifest)])
        self.manifest = manifest

    def _array(self, entry: Entry, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        with self._checked(entry, ".npy") as file:
            check_npy(file)
            array = np.load(file, allow_pickle=False)
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(
                    f"it holds {array.dtype} of the shape {array.shape}, not {dtype} "
                    f"of {shape}"
                )
        return array

    @contextlib.contextmanager
    def _checked(self, entry: Entry, suffix: str) -> Iterator[IO[bytes]]:
        """Opens a file after checking it against the committed checksum.

        A link may lead out of the folder, as in caches of downloads.
        """
        path = self.folder / f"{entry.name}{suffix}"
        try:
            with files.open_file(path) as file:
                is_whole = checksum(file) == entry.sha256[suffix]
                file.seek(0)
                if is_whole:
                    yield file
        except OSError as error:
            raise _damaged(path, str(error.strerror)) from error
        except (ValueError, KeyError, TypeError) as error:
            raise _damaged(path, str(error)) from error
        if not is_whole:
            raise _damaged(path, "its checksum differs")


def create(folder: pathlib.Path, manifest: Manifest) -> Store:
    """Creates an index without rows, and opens it for writing.

    Args:
      folder: Folder that does not exist yet, or is empty.
      manifest: Manifest of the empty index.

    Raises:
      ArtifactError: The folder is not empty, cannot be written, or another process
        writes to it.
    """
    if folder.exists() and not folder.is_dir():
        raise ArtifactError(f"{folder} is a file; name a new folder for the index.")
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    lock = _lock(folder)
    try:
        _check_empty(folder)
        with _writing(folder):
            _write(folder / MANIFEST, [_encode(manifest)])
            files.sync(folder.absolute().parent)
        return Store(folder, writable=True, lock=lock)
    except BaseException:
        lock.release()
        raise


def _check_empty(folder: pathlib.Path) -> None:
    """Checks that a folder holds neither an index nor other files.

    Raises:
      ArtifactError: It does.
    """
    if (folder / MANIFEST).exists():
        raise ArtifactError(
            f"{folder} is an index already; open it to add images, or name another "
            "folder."
        )
    # A creation that was interrupted leaves hidden files only.
    if any(not path.name.startswith(".") for path in folder.iterdir()):
        raise ArtifactError(f"{folder} is not empty; name a new folder for the index.")


def _write(path: pathlib.Path, parts: Iterable[Buffer]) -> str:
    """Writes a file atomically and returns its SHA-256.

    Args:
      path: Path of the file; an existing one is replaced.
      parts: Contents in order.
    """
    digest = hashlib.sha256()
    with files.replacing(path) as file:
        for part in parts:
            file.write(part)
            digest.update(part)
    return digest.hexdigest()


def checksum(file: IO[bytes]) -> str:
    """Returns the SHA-256 of a file from its current position on."""
    digest = hashlib.sha256()
    while part := file.read(_READ_BYTES):
        digest.update(part)
    return digest.hexdigest()


@contextlib.contextmanager
def _writing(folder: pathlib.Path) -> Iterator[None]:
    """Turns an error of the disk in the body into an `ArtifactError`."""
    try:
        yield
    except OSError as error:
        raise ArtifactError(
            f"{folder} could not be written: {error.strerror}; it is unchanged. Free "
            "some disk space, or allow writing, and repeat the command."
        ) from error


def _npy(array: np.ndarray) -> Iterator[Buffer]:
    header = io.BytesIO()
    array = np.ascontiguousarray(array)
    np.lib.format.write_array_header_1_0(
        header, np.lib.format.header_data_from_array_1_0(array)
    )
    yield header.getvalue()
    yield array.data


def _lock(folder: pathlib.Path) -> locks.Lock:
    try:
        return locks.Lock(
            folder / _LOCK,
            lambda who: f"{who} is writing {folder}: wait until it has ended.",
        )
    except (locks.LockedError, WriteError) as error:
        raise ArtifactError(str(error)) from error


def _encode(manifest: Manifest) -> bytes:
    """Returns the content of `index.json`, with its checksum."""
    content = checksums.seal_json(dataclasses.asdict(manifest))
    return json.dumps(content, separators=(",", ":")).encode()


def _read_manifest(folder: pathlib.Path) -> Manifest:
    path = folder / MANIFEST
    try:
        fields = checksums.unseal_json(files.read_json(path, files.MAX_TEXT))
        if fields["format"] != manifests.FORMAT:
            raise ArtifactError(
                f"{path} has format {fields['format']}, and this version reads format "
                f"{manifests.FORMAT}; use the version that wrote it, or create the "
                "index again."
            )
        for name in ("batches", "deletions"):
            fields[name] = tuple(Entry(**entry) for entry in fields[name])
        manifest = Manifest(**fields)
        manifests.check_manifest(manifest)
        return manifest
    except (FileNotFoundError, NotADirectoryError):
        raise ArtifactError(
            f"{folder} is not an index (it has no {MANIFEST}); name an index, or "
            "create one with `deeprank index IMAGES --model=MODEL --out=INDEX`."
        ) from None
    except OSError as error:
        raise _damaged(path, f"it cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, ArtifactError):
            raise
        raise _damaged(path, f"it cannot be read ({error})") from error


def _damaged(path: pathlib.Path, why: str) -> ArtifactError:
    return ArtifactError(
        f"{path} is damaged: {why}; restore it from a backup, or create the index "
        "again."
    )
