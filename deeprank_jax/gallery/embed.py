"""How does a folder become a table of embeddings, though the process be killed?

Convention: what is done lies beside the table in `NAME.parts/`, a file for every 1,024
images, and is gone once the table is whole. A table that took several processes is
byte for byte that of one.
"""

from collections.abc import Callable, Iterator
import hashlib
import json
import os
import pathlib
import shutil
from typing import Any

from absl import logging
import numpy as np
import pyarrow
import pyarrow.parquet
import tqdm

from deeprank_jax.data import errors, files
from deeprank_jax.data.reader import BadImages, ImageReader
from deeprank_jax.data.records import Records
from deeprank_jax.gallery.model import BATCH_SIZE, Model

_PART_SIZE = 1024

Watch = Callable[[np.ndarray], Any]


class CannotWriteError(OSError):
    """The table could not be written; what was done is kept."""


def embed_to_file(
    model: Model, records: Records, out: str | os.PathLike[str], *, workers: int = 2
) -> tuple[int, int]:
    """Writes the embeddings of images as Parquet.

    The table has the columns `path`, `label` and `embedding`, and says in its metadata
    which model it is of. Images that cannot be read are listed, with the reason, in
    `NAME.bad.csv` beside it.

    Args:
      model: which embeds.
      records: the images, of `open_source`.
      out: the table; one that is there is replaced once the new one is whole.
      workers: threads that decode.

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
        with _reader(model, records, workers, bad) as reader:
            _write_parts(model, records, reader, parts)
        num = _join(parts, out, model)
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


def embed_records(
    model: Model,
    records: Records,
    *,
    workers: int = 2,
    watch: Watch = lambda images: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns embeddings `[M, D]` of the images that can be read, and their indices.

    The others are named in the log.

    Args:
      model: which embeds.
      records: the `N` images.
      workers: threads that decode.
      watch: is shown the images of each batch, `[n, S, S, 3]` as the network sees
        them, zeros for one that cannot be read.

    Raises:
      DataError: none of the images can be read.
    """
    everything = np.arange(len(records))
    options = {"workers": workers, "watch": watch}
    parts = list(embed_parts(model, records, everything, len(records), **options))
    embeddings, indices = (np.concatenate(x) for x in zip(*parts, strict=True))
    if not len(indices):
        raise none_readable(records.name, len(records))
    return embeddings, indices


def embed_parts(
    model: Model,
    records: Records,
    wanted: np.ndarray,
    part_size: int,
    *,
    workers: int = 2,
    watch: Watch = lambda images: None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields embeddings `[m, D]` and indices `[m]` of what can be read, part by part.

    Args:
      model: which embeds.
      records: the images.
      wanted: `[n]` indices of those to embed, in order.
      part_size: how many images a part is of, of which some may not be readable.
      workers: threads that decode.
      watch: as of `embed_records`.
    """
    with _reader(model, records, workers, None) as reader, _bar(len(wanted)) as bar:
        for start in range(0, len(wanted), part_size):
            indices = wanted[start : start + part_size]
            yield _embed_some(model, reader, indices, bar, watch)


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


def none_readable(name: str, num: int) -> errors.DataError:
    """Returns the error of a source of which nothing can be used."""
    return errors.DataError(
        f"{name}: none of {num:,} images can be read; the log says why."
    )


def _reader(
    model: Model, records: Records, workers: int, bad: BadImages | None
) -> ImageReader:
    how = model.preprocessing
    return ImageReader(
        records,
        image_size=how["image_size"],
        fit=how["fit"],
        max_pixels=how["max_pixels"],
        workers=workers,
        bad_images=bad,
    )


def _bar(total: int, initial: int = 0) -> tqdm.tqdm:
    return tqdm.tqdm(total=total, initial=initial, desc="embed", unit=" images")


def _embed_some(
    model: Model,
    reader: ImageReader,
    wanted: np.ndarray,
    bar: tqdm.tqdm,
    watch: Watch = lambda images: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns embeddings `[m, D]` of what can be read, and what of `wanted` it is."""
    ok: list[np.ndarray] = []

    def batches() -> Iterator[np.ndarray]:
        for first in range(0, len(wanted), BATCH_SIZE):
            images, good = reader.load(wanted[first : first + BATCH_SIZE])
            ok.append(good)
            watch(images)
            yield images

    pieces = []
    for embeddings in model.embed_batches(batches()):
        bar.update(len(embeddings))
        pieces.append(embeddings)
    good = np.concatenate(ok)
    return np.concatenate(pieces)[good], wanted[good]


def _write_parts(
    model: Model, records: Records, reader: ImageReader, parts: pathlib.Path
) -> None:
    starts = range(0, len(records), _PART_SIZE)
    todo = [s for s in starts if not _part(parts, s).exists()]
    left = sum(min(_PART_SIZE, len(records) - start) for start in todo)
    done = len(records) - left
    if done:
        logging.info("%s: %s images are done already.", records.name, f"{done:,}")
    with _bar(len(records), done) as bar:
        for start in todo:
            wanted = np.arange(start, min(start + _PART_SIZE, len(records)))
            embeddings, indices = _embed_some(model, reader, wanted, bar)
            table = _table(model, records, indices, embeddings)
            _write(table, _part(parts, start))


def _table(
    model: Model, records: Records, indices: np.ndarray, embeddings: np.ndarray
) -> pyarrow.Table:
    flat = pyarrow.array(embeddings.reshape(-1), pyarrow.float32())
    columns = {
        "path": pyarrow.array([records.describe(int(i)) for i in indices], "string"),
        "label": pyarrow.array([records.label_name(int(i)) for i in indices], "string"),
        "embedding": pyarrow.FixedSizeListArray.from_arrays(flat, model.embedding_dim),
    }
    table = pyarrow.table(columns)
    return table.replace_schema_metadata({"model": model.fingerprint})


def _join(parts: pathlib.Path, out: pathlib.Path, model: Model) -> int:
    done = sorted(parts.glob("*.parquet"))
    tables = [pyarrow.parquet.read_table(file) for file in done]
    table = pyarrow.concat_tables(tables)
    _write(table, out)
    return len(table)


def _write(table: pyarrow.Table, path: pathlib.Path) -> None:
    """Writes a table, whole or not at all."""
    with files.replacing(path) as file:
        pyarrow.parquet.write_table(table, file)


def _part(parts: pathlib.Path, start: int) -> pathlib.Path:
    return parts / f"{start:012d}.parquet"


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
    for file in parts.glob("*.parquet"):
        file.unlink()
    bad.unlink(missing_ok=True)
    with files.replacing(about) as file:
        file.write(json.dumps(wanted).encode())
