"""Bulk embedding: images are decoded while the network runs.

Images that cannot be read are left out and named in the log.
"""

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent import futures
import os
from typing import Any, Protocol, TypeVar

import jax
import numpy as np

from deeprank_jax import errors
from deeprank_jax.data.reader import BadImages, ImageReader
from deeprank_jax.data.records import Records
from deeprank_jax.progress import Progress, reporting

# Number of images per program call; smaller batches are padded, so few shapes compile.
BATCH_SIZE = 64
# Batches decoded ahead of the network.
_AHEAD = 2

Watch = Callable[[np.ndarray], object]
Item = TypeVar("Item")
Loaded = TypeVar("Loaded")


class Embedder(Protocol):
    """A model that embeds batches of prepared images."""

    @property
    def preprocessing(self) -> Mapping[str, Any]:
        """Returns `image_size`, `fit` and `max_pixels`."""

    def embed_batches(self, batches: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yields the embeddings of each batch."""


def embed_records(
    model: Embedder,
    records: Records,
    *,
    watch: Watch = lambda images: None,
    progress: Progress | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Embeds the images of a split or folder that can be read.

    Args:
      model: Model that embeds.
      records: `N` images.
      watch: Function called with the images of each batch, in order, `[n, S, S, 3]` as
        the network sees them, zeros for an unreadable one.
      progress: Function that receives the progress; None for a bar.

    Returns:
      Embeddings `[M, D]` float32 and their indices `[M]`.

    Raises:
      DataError: No image can be read.
    """
    everything = np.arange(len(records))
    bad = BadImages(None, len(records), max_share=1.0)
    parts = embed_parts(
        model,
        records,
        everything,
        len(records),
        bad=bad,
        watch=watch,
        progress=progress,
    )
    embeddings, indices = (np.concatenate(x) for x in zip(*parts, strict=True))
    if not len(indices):
        raise none_readable(records.name, len(records), bad.first)
    return embeddings, indices


def embed_parts(
    model: Embedder,
    records: Records,
    indices: np.ndarray,
    part_size: int,
    *,
    bad: BadImages | None = None,
    watch: Watch = lambda images: None,
    progress: Progress | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields embeddings `[m, D]` and indices `[m]` of readable images, part by part.

    The network does not wait between parts.

    Args:
      model: Model that embeds.
      records: Images.
      indices: `[n]` indices of the images to embed, in order.
      part_size: Number of images per part, unreadable ones included.
      bad: List to which unreadable images are added.
      watch: Function called with the images of each batch, as in `embed_records`.
      progress: Function that receives the progress; None for a bar.
    """
    starts = range(0, len(indices), part_size)
    parts = [indices[start : start + part_size] for start in starts]
    slices = [
        part[first : first + BATCH_SIZE]
        for part in parts
        for first in range(0, len(part), BATCH_SIZE)
    ]
    loaded: collections.deque[tuple[np.ndarray, np.ndarray]] = collections.deque()

    def batches() -> Iterator[np.ndarray]:
        ahead = _run_ahead(reader.load, slices)
        for batch_indices, (images, ok) in zip(slices, ahead, strict=True):
            loaded.append((batch_indices, ok))
            watch(images)
            yield images

    with (
        _create_reader(model, records, bad) as reader,
        reporting(len(indices), "embed", progress) as advance,
    ):
        embedded = model.embed_batches(batches())
        for part in parts:
            part_rows, part_indices = [], []
            for _ in range(0, len(part), BATCH_SIZE):
                embeddings = next(embedded)
                batch_indices, ok = loaded.popleft()
                part_rows.append(embeddings[ok])
                part_indices.append(batch_indices[ok])
                advance(len(batch_indices))
            yield np.concatenate(part_rows), np.concatenate(part_indices)


def none_readable(name: str, num: int, first: str) -> errors.DataError:
    """Returns the error for images none of which can be read.

    Args:
      name: Name of the folder or list.
      num: Number of images.
      first: The first of them and the reason, "" if it is only in a file.
    """
    reason = f", the first is {first}" if first else ""
    return errors.DataError(
        f"{name}: none of {num:,} images can be read{reason}; give images that are "
        "JPEG, PNG, WebP, AVIF, BMP, TIFF or GIF."
    )


def _run_ahead(
    load: Callable[[Item], Loaded], items: Iterable[Item]
) -> Iterator[Loaded]:
    """Yields `load(item)` for each item, in order, computed ahead by a thread."""
    pool = futures.ThreadPoolExecutor(1)
    pending: collections.deque[futures.Future[Loaded]] = collections.deque()
    try:
        for item in items:
            pending.append(pool.submit(load, item))
            if len(pending) > _AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _create_reader(
    model: Embedder, records: Records, bad: BadImages | None
) -> ImageReader:
    preprocessing = model.preprocessing
    # On the CPU the network needs all cores, so extra decoding threads slow it down.
    on_cpu = jax.default_backend() == "cpu"
    return ImageReader(
        records,
        image_size=preprocessing["image_size"],
        fit=preprocessing["fit"],
        max_pixels=preprocessing["max_pixels"],
        workers=0 if on_cpu else os.cpu_count() or 1,
        bad_images=bad,
    )
