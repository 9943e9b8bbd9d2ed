"""How do many images become embeddings, decoded while the network is busy?

Convention: images that cannot be read are left out and named in the log.
"""

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
import os
from typing import Any

import jax
import numpy as np
import tqdm

from deeprank_jax import errors
from deeprank_jax.data.reader import BadImages, ImageReader
from deeprank_jax.data.records import Records
from deeprank_jax.inference.model import BATCH_SIZE, Model

# Batches decoded ahead of the one that the network is at.
_AHEAD = 2

Watch = Callable[[np.ndarray], Any]


def embed_records(
    model: Model, records: Records, *, watch: Watch = lambda images: None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns embeddings `[M, D]` of the images that can be read, and their indices.

    Args:
      model: which embeds.
      records: the `N` images.
      watch: is shown the images of each batch, in order, `[n, S, S, 3]` as the network
        sees them, zeros for one that cannot be read.

    Raises:
      DataError: none of the images can be read.
    """
    everything = np.arange(len(records))
    parts = list(embed_parts(model, records, everything, len(records), watch=watch))
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
    bad: BadImages | None = None,
    watch: Watch = lambda images: None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields embeddings `[m, D]` and indices `[m]` of what can be read, part by part.

    The network does not wait between parts.

    Args:
      model: which embeds.
      records: the images.
      wanted: `[n]` indices of those to embed, in order.
      part_size: how many images a part is of, of which some may not be readable.
      bad: takes those that cannot be read.
      watch: as of `embed_records`.
    """
    starts = range(0, len(wanted), part_size)
    parts = [wanted[start : start + part_size] for start in starts]
    slices = [
        part[first : first + BATCH_SIZE]
        for part in parts
        for first in range(0, len(part), BATCH_SIZE)
    ]
    loaded: collections.deque[tuple[np.ndarray, np.ndarray]] = collections.deque()

    def batches() -> Iterator[np.ndarray]:
        ahead = _run_ahead(reader.load, slices)
        for indices, (images, ok) in zip(slices, ahead, strict=True):
            loaded.append((indices, ok))
            watch(images)
            yield images

    with _reader(model, records, bad) as reader, _bar(len(wanted)) as bar:
        embedded = model.embed_batches(batches())
        for part in parts:
            rows, indices = [], []
            for _ in range(0, len(part), BATCH_SIZE):
                embeddings = next(embedded)
                those, ok = loaded.popleft()
                rows.append(embeddings[ok])
                indices.append(those[ok])
                bar.update(len(those))
            yield np.concatenate(rows), np.concatenate(indices)


def none_readable(name: str, num: int) -> errors.DataError:
    """Returns the error of a source of which nothing can be used."""
    return errors.DataError(
        f"{name}: none of {num:,} images can be read; the log says why."
    )


def _run_ahead(load: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """Yields what `load` makes of the items, in order, a thread being some ahead."""
    pool = futures.ThreadPoolExecutor(1)
    pending: collections.deque[futures.Future[Any]] = collections.deque()
    try:
        for item in items:
            pending.append(pool.submit(load, item))
            if len(pending) > _AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _reader(model: Model, records: Records, bad: BadImages | None) -> ImageReader:
    how = model.preprocessing
    # Where the network runs on the processor, every thread takes from it.
    busy = jax.default_backend() == "cpu"
    return ImageReader(
        records,
        image_size=how["image_size"],
        fit=how["fit"],
        max_pixels=how["max_pixels"],
        workers=0 if busy else os.cpu_count() or 1,
        bad_images=bad,
    )


def _bar(total: int) -> tqdm.tqdm:
    return tqdm.tqdm(total=total, desc="embed", unit=" images")
