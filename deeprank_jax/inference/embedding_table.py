"""Bulk embedding into a Parquet table that resumes after the process is killed.

Finished parts are kept beside the table in `NAME.parts/`, a file for every 1,024
images, and deleted once the table is complete. A table written by several processes,
one after another, is byte for byte that of one.
"""

from collections.abc import Iterator
from concurrent import futures
import hashlib
import json
import os
import pathlib
import shutil
from typing import Any

from absl import logging
import numpy as np

from deeprank_jax import checksums, errors, files
from deeprank_jax.data.reader import BadImages
from deeprank_jax.data.records import Records
from deeprank_jax.errors import DataError, UserError, needs_extra
from deeprank_jax.files import locks
from deeprank_jax.inference import embedding_parts
from deeprank_jax.inference.bulk import embed_parts, none_readable
from deeprank_jax.inference.model import Model
from deeprank_jax.progress import Progress

with needs_extra("search"):
    import pyarrow
    import pyarrow.parquet

_PART_SIZE = 1024


class CannotWriteError(UserError):
    """The table cannot be written; finished parts are kept."""


def embed_to_file(
    model: Model,
    records: Records,
    out: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
) -> tuple[int, int]:
    """Writes the embeddings of images as Parquet.

    The table has the columns `path`, `label` and `embedding`, and the model's
    fingerprint in its metadata. Unreadable images are listed with the reason in
    `NAME.bad.csv` beside it. Memory is that of a few parts, for any number of images.

    Args:
      model: Model that embeds.
      records: Images from `open_source`.
      out: Path of the table; an existing one is replaced once the new one is complete.
      progress: Function that receives the progress; None for a bar on a terminal.

    Returns:
      The number of images in the table, and the number of unreadable ones.

    Raises:
      CannotWriteError: The disk is full, for example; run again to continue.
      DataError: No image can be read; the table is then empty.
      LockedError: Another process writes the table.
    """
    out = pathlib.Path(out).expanduser()
    parts = embedding_parts.folder_of(out)
    bad_list = out.with_name(f"{files.with_room(out.name)}.bad.csv")
    if out.is_dir():
        raise CannotWriteError(f"{out} is a folder; give --out the name of a file.")
    if parts.is_symlink() or bad_list.is_symlink():
        link = parts if parts.is_symlink() else bad_list
        raise CannotWriteError(f"{link} is a link; delete it, or give another --out.")
    try:
        files.create_folder(out.parent)
        with locks.beside(out):
            num = _write_table(model, records, out, parts, bad_list, progress)
    except errors.UserError:
        raise
    except (OSError, pyarrow.ArrowException) as error:
        reason = getattr(error, "strerror", None) or error
        raise CannotWriteError(
            f"{out} cannot be written ({reason}); finished embeddings are kept. Make "
            "room, or give an --out that you may write to, and run the same command "
            "again to continue."
        ) from error
    return num, len(records) - num


def _write_table(
    model: Model,
    records: Records,
    out: pathlib.Path,
    parts: pathlib.Path,
    bad_list: pathlib.Path,
    progress: Progress | None,
) -> int:
    """Writes the missing parts, then the table, and returns its number of rows.

    Raises:
      DataError: It has none.
    """
    _begin(parts, _describe(model, records), bad_list)
    bad = BadImages(bad_list, len(records), max_share=1.0)
    _write_parts(model, records, bad, parts, progress)
    num = _join(model, records, parts, out)
    shutil.rmtree(parts)
    if not num:
        raise none_readable(records.name, len(records), bad.first)
    return num


def read_table(
    path: str | os.PathLike[str],
) -> tuple[list[str], list[str], np.ndarray, str]:
    """Returns paths, labels, embeddings `[N, D]` and model fingerprint of a table.

    Raises:
      DataError: The file cannot be read, or is not a table of embeddings.
    """
    try:
        files.check_file(path)
        with pyarrow.parquet.ParquetFile(path, page_checksum_verification=True) as file:
            table, metadata = file.read(), file.metadata.metadata or {}
        if not pyarrow.types.is_fixed_size_list(table.schema.field("embedding").type):
            raise ValueError("its column 'embedding' is of another type")
        embeddings = table["embedding"].combine_chunks()
        values = embeddings.flatten().to_numpy().reshape(len(embeddings), -1)
        paths, labels = (table[name].to_pylist() for name in ("path", "label"))
        model = metadata[b"model"].decode()
        _digest(model, paths, labels, values).check(metadata)
        return paths, labels, values, model
    except (pyarrow.ArrowException, KeyError, ValueError, OSError) as error:
        raise DataError(
            f"{path} is not a table of embeddings ({error}); write one with "
            "`deeprank embed`."
        ) from error


def _write_parts(
    model: Model,
    records: Records,
    bad: BadImages,
    parts: pathlib.Path,
    progress: Progress | None,
) -> None:
    starts = range(0, len(records), _PART_SIZE)
    pending = [start for start in starts if not _is_whole(_part(parts, start))]
    ranges = [np.arange(s, min(s + _PART_SIZE, len(records))) for s in pending]
    num_pending = sum(map(len, ranges))
    if num_pending < len(records):
        finished = f"{len(records) - num_pending:,}"
        logging.info("%s: %s images are embedded already.", records.name, finished)
    if not pending:
        return
    # Only the last part can be shorter, so cutting by size gives the same parts again.
    embedded = embed_parts(
        model, records, np.concatenate(ranges), _PART_SIZE, bad=bad, progress=progress
    )
    with futures.ThreadPoolExecutor(1) as pool:
        writing = pool.submit(lambda: None)
        for start, (embeddings, indices) in zip(pending, embedded, strict=True):
            writing.result()
            writing = pool.submit(_write, embeddings, indices, _part(parts, start))
        writing.result()


def _is_whole(path: pathlib.Path) -> bool:
    """Returns whether a part can be read; a damaged one is deleted."""
    try:
        embedding_parts.read_part(path)
        return True
    except FileNotFoundError:
        return False
    except ValueError as error:
        logging.warning("%s is damaged (%s): embedded again.", path, error)
        path.unlink()
        return False


def _write(embeddings: np.ndarray, indices: np.ndarray, path: pathlib.Path) -> None:
    """Writes a part atomically."""
    with files.replacing(path) as file:
        np.savez(file, embeddings=embeddings, indices=indices)


def _join(
    model: Model, records: Records, parts: pathlib.Path, out: pathlib.Path
) -> int:
    """Writes the table, one row group per part, and returns its number of rows."""
    num = 0
    schema, digest = _schema(model), checksums.TableDigest(model.fingerprint)
    # Vectors neither repeat nor shrink; to try takes longer than to write them.
    options: dict[str, Any] = {
        "use_dictionary": ["label"],
        "compression": "none",
        "write_page_checksum": True,
    }
    with (
        files.replacing(out) as file,
        pyarrow.parquet.ParquetWriter(file, schema, **options) as writer,
    ):
        for embeddings, indices in _read_parts(parts):
            if len(indices):
                table = _table(schema, records, indices, embeddings)
                writer.write_table(table)
                paths, labels = table["path"].to_pylist(), table["label"].to_pylist()
                _add(digest, paths, labels, embeddings)
            num += len(indices)
        writer.add_key_value_metadata({digest.KEY: digest.hexdigest()})
    return num


def _digest(
    model: str, paths: list[str], labels: list[str], embeddings: np.ndarray
) -> checksums.TableDigest:
    """Returns the checksum of a whole table."""
    digest = checksums.TableDigest(model)
    _add(digest, paths, labels, embeddings)
    return digest


def _add(
    digest: checksums.TableDigest,
    paths: list[str],
    labels: list[str],
    embeddings: np.ndarray,
) -> None:
    columns = {"path": paths, "label": labels, "embedding": embeddings}
    digest.add(columns if len(paths) else {})


def _read_parts(parts: pathlib.Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for path in sorted(parts.glob(embedding_parts.PATTERN)):
        part = embedding_parts.read_part(path)
        yield part["embeddings"], part["indices"]


def _schema(model: Model) -> pyarrow.Schema:
    vector = pyarrow.list_(pyarrow.float32(), model.embedding_dim)
    columns = {"path": pyarrow.string(), "label": pyarrow.string(), "embedding": vector}
    return pyarrow.schema(columns, metadata={"model": model.fingerprint})


def _table(
    schema: pyarrow.Schema,
    records: Records,
    indices: np.ndarray,
    embeddings: np.ndarray,
) -> pyarrow.Table:
    flat = pyarrow.array(embeddings.reshape(-1))
    columns = [
        pyarrow.array([records.describe(int(i)) for i in indices], "string"),
        pyarrow.array([records.label_name(int(i)) for i in indices], "string"),
        pyarrow.FixedSizeListArray.from_arrays(flat, embeddings.shape[1]),
    ]
    return pyarrow.Table.from_arrays(columns, schema=schema)


def _part(parts: pathlib.Path, start: int) -> pathlib.Path:
    return parts / f"{start:012d}.npz"


def _describe(model: Model, records: Records) -> dict[str, str]:
    """Returns the identity of a table: its model and images."""
    digest = hashlib.sha256()
    for index in range(len(records)):
        name = records.describe(index)
        line = f"{name}\0{records.label_name(index)}\0{_version(name)}\0"
        digest.update(line.encode("utf-8", "backslashreplace"))
    return {"model": model.fingerprint, "images": digest.hexdigest()}


def _version(name: str) -> str:
    """Returns size and time of change of an image file; "" for no file."""
    try:
        status = os.stat(name)
    except OSError:
        return ""
    return f"{status.st_size}-{status.st_mtime_ns}"


def _begin(parts: pathlib.Path, identity: dict[str, str], bad: pathlib.Path) -> None:
    """Creates the folder of parts; parts of another model or list are deleted."""
    about = parts / embedding_parts.IDENTITY
    parts.mkdir(parents=True, exist_ok=True)
    try:
        saved_identity = files.read_json(about)
    except FileNotFoundError:
        saved_identity = None
    except ValueError:
        saved_identity = {}
    if saved_identity == identity:
        return
    if saved_identity is not None:
        logging.warning(
            "%s: from another model or other images, or damaged; starting from the "
            "beginning.",
            parts,
        )
    for file in parts.glob(embedding_parts.PATTERN):
        file.unlink()
    bad.unlink(missing_ok=True)
    with files.replacing(about) as file:
        file.write(json.dumps(identity).encode())
