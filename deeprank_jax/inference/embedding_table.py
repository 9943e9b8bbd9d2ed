"""How does a folder become a table of embeddings, though the process be killed?

Convention: what is done lies beside the table in `NAME.parts/`, a file for every 1,024
images, and is gone once the table is whole. A table that took several processes is
byte for byte that of one.
"""

from collections.abc import Iterator
from concurrent import futures
import hashlib
import json
import os
import pathlib
import shutil

from absl import logging
import numpy as np
import pyarrow
import pyarrow.parquet

from deeprank_jax import files
from deeprank_jax.data.reader import BadImages
from deeprank_jax.data.records import Records
from deeprank_jax.inference.bulk import embed_parts, none_readable
from deeprank_jax.inference.model import Model

_PART_SIZE = 1024


class CannotWriteError(OSError):
    """The table could not be written; what was done is kept."""


def embed_to_file(
    model: Model, records: Records, out: str | os.PathLike[str]
) -> tuple[int, int]:
    """Writes the embeddings of images as Parquet.

    The table has the columns `path`, `label` and `embedding`, and says in its metadata
    which model it is of. Images that cannot be read are listed, with the reason, in
    `NAME.bad.csv` beside it. Memory is that of a few parts, however many there are.

    Args:
      model: which embeds.
      records: the images, of `open_source`.
      out: the table; one that is there is replaced once the new one is whole.

    Returns:
      How many images are in the table, and how many could not be read.

    Raises:
      CannotWriteError: as when the disk is full; run again to go on.
      DataError: none of the images can be read; the table is then empty.
    """
    out = pathlib.Path(out).expanduser()
    parts = out.with_name(f"{out.name}.parts")
    listed = out.with_name(f"{out.name}.bad.csv")
    if out.is_dir():
        raise CannotWriteError(f"{out} is a folder; give --out the name of a file.")
    try:
        _begin(parts, _describe(model, records), listed)
        bad = BadImages(listed, len(records), max_share=1.0)
        _write_parts(model, records, bad, parts)
        num = _join(model, records, parts, out)
    except (OSError, pyarrow.ArrowException) as error:
        reason = getattr(error, "strerror", None) or error
        raise CannotWriteError(
            f"{out} cannot be written ({reason}); what was embedded is kept. Make "
            "room, or give an --out that you may write to, and run the same command "
            "again to go on."
        ) from error
    shutil.rmtree(parts)
    if not num:
        raise none_readable(records.name, len(records))
    return num, len(records) - num


def read_table(
    path: str | os.PathLike[str],
) -> tuple[list[str], list[str], np.ndarray, str]:
    """Returns paths, labels, embeddings `[N, D]` and the model of a table.

    Raises:
      OSError: it cannot be read, or is no table of embeddings.
    """
    try:
        table = pyarrow.parquet.read_table(path)
        metadata = table.schema.metadata or {}
        embeddings = table["embedding"].combine_chunks()
        return (
            table["path"].to_pylist(),
            table["label"].to_pylist(),
            embeddings.flatten().to_numpy().reshape(len(embeddings), -1),
            metadata[b"model"].decode(),
        )
    except (pyarrow.ArrowException, KeyError) as error:
        raise OSError(
            f"{path} is no table of `deeprank embed` ({error}); write one with it."
        ) from error


def _write_parts(
    model: Model, records: Records, bad: BadImages, parts: pathlib.Path
) -> None:
    starts = range(0, len(records), _PART_SIZE)
    todo = [start for start in starts if not _part(parts, start).exists()]
    wanted = [np.arange(s, min(s + _PART_SIZE, len(records))) for s in todo]
    num_left = sum(map(len, wanted))
    if num_left < len(records):
        done = f"{len(records) - num_left:,}"
        logging.info("%s: %s images are done already.", records.name, done)
    if not todo:
        return
    # Only the last part of all is shorter: cut by size, these are the same again.
    embedded = embed_parts(model, records, np.concatenate(wanted), _PART_SIZE, bad=bad)
    with futures.ThreadPoolExecutor(1) as pool:
        writing = pool.submit(lambda: None)
        for start, (embeddings, indices) in zip(todo, embedded, strict=True):
            writing.result()
            writing = pool.submit(_write, embeddings, indices, _part(parts, start))
        writing.result()


def _write(embeddings: np.ndarray, indices: np.ndarray, path: pathlib.Path) -> None:
    """Writes a part, whole or not at all."""
    with files.replacing(path) as file:
        np.savez(file, embeddings=embeddings, indices=indices)


def _join(
    model: Model, records: Records, parts: pathlib.Path, out: pathlib.Path
) -> int:
    """Writes the table, a group of rows for each part that has any."""
    num = 0
    schema = _schema(model)
    # Vectors neither repeat nor shrink; to try takes longer than to write them.
    options = {"use_dictionary": ["label"], "compression": "none"}
    with (
        files.replacing(out) as file,
        pyarrow.parquet.ParquetWriter(file, schema, **options) as writer,
    ):
        for embeddings, indices in _read_parts(parts):
            if len(indices):
                writer.write_table(_table(schema, records, indices, embeddings))
            num += len(indices)
    return num


def _read_parts(parts: pathlib.Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for path in sorted(parts.glob("*.npz")):
        with np.load(path) as part:
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
    """Returns what the parts have to agree on, to be those of one table."""
    digest = hashlib.sha256()
    for index in range(len(records)):
        name = records.describe(index)
        told = f"{name}\0{records.label_name(index)}\0{_version(name)}\0"
        digest.update(told.encode("utf-8", "backslashreplace"))
    return {"model": model.fingerprint, "images": digest.hexdigest()}


def _version(name: str) -> str:
    """Returns what differs for another image of the same name; "" for no file."""
    try:
        found = os.stat(name)
    except OSError:
        return ""
    return f"{found.st_size}-{found.st_mtime_ns}"


def _begin(parts: pathlib.Path, wanted: dict[str, str], bad: pathlib.Path) -> None:
    """Makes the folder of the parts; those of another model or list are thrown away."""
    about = parts / "parts.json"
    parts.mkdir(parents=True, exist_ok=True)
    try:
        found = json.loads(about.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        found = None
    if found == wanted:
        return
    if found is not None:
        logging.warning(
            "%s: begun with another model or other images; starting anew.", parts
        )
    for file in parts.glob("*.npz"):
        file.unlink()
    bad.unlink(missing_ok=True)
    with files.replacing(about) as file:
        file.write(json.dumps(wanted).encode())
