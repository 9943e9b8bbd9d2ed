"""Copies among images: found by embedding, pixels and details, the best one first."""

from collections.abc import Mapping

import numpy as np

from deeprank_jax import errors
from deeprank_jax.data import decode
from deeprank_jax.data.records import Records
from deeprank_jax.inference import bulk
from deeprank_jax.inference.results import ImageGroups, create_groups
from deeprank_jax.progress import Progress
from deeprank_jax.search import grouping

# Smallest limit of the squared distance of copies at 16 x 16 pixels, a root mean square
# of 9 of 255; that of a model may be measured on images with little detail.
_MIN_PIXEL_DISTANCE = 1.0


def find_copies(
    model: bulk.Embedder,
    records: Records,
    calibrated: Mapping[str, float],
    *,
    max_distance: float | None = None,
    progress: Progress | None = None,
) -> ImageGroups:
    """Returns groups of two or more copies, in each the image to keep first.

    Args:
      model: Model that embeds.
      records: Images.
      calibrated: The model's `distance` and `pixel_distance`, within which smaller,
        compressed copies lie.
      max_distance: Largest squared distance of two copies' embeddings; None for the
        calibrated distances and a comparison of details.
      progress: Function that receives the progress; None for a bar.

    Raises:
      DataError: No image can be read.
    """
    with errors.needs_extra("search"):
        from deeprank_jax.descriptors.pixels import pixels
        from deeprank_jax.inference.detail_check import DetailCheck
    max_pixels = model.preprocessing["max_pixels"]
    batches: list[np.ndarray] = []
    rows, indices = bulk.embed_records(
        model,
        records,
        watch=lambda batch: batches.append(pixels(batch)),
        progress=progress,
    )
    if max_distance is None:
        max_distance = float(calibrated["distance"])
        groups = grouping.find_duplicates(
            rows,
            max_distance,
            np.concatenate(batches)[indices],
            max(float(calibrated["pixel_distance"]), _MIN_PIXEL_DISTANCE),
            DetailCheck(records, indices, max_pixels),
        )
    else:
        groups = grouping.find_duplicates(rows, max_distance)
    members, distances = [], []
    for group in groups:
        order, to_first = _order_copies(
            records, indices[group], rows[group], max_pixels
        )
        members.append(indices[group][order])
        distances.append(to_first)
    return create_groups(records, members, len(indices), max_distance, distances)


def _order_copies(
    records: Records, indices: np.ndarray, rows: np.ndarray, max_pixels: int
) -> tuple[np.ndarray, tuple[float, ...]]:
    """Returns the places of copies in order, and their distances to the first.

    The first is the one to keep: that with the most pixels, of these the largest file,
    and of these the one that was listed first.

    Args:
      records: Images.
      indices: `[n]` indices of the copies in `records`.
      rows: `[n, D]` their embeddings.
      max_pixels: Largest number of pixels of an image.
    """
    sizes = [_size(records, int(index), max_pixels) for index in indices]
    first = max(range(len(sizes)), key=lambda i: (*sizes[i], -i))
    distances = np.sum(np.square(rows - rows[first]), axis=1)
    others = [i for i in np.argsort(distances, kind="stable") if i != first]
    order = np.array([first, *others])
    return order, tuple(distances[order].tolist())


def _size(records: Records, index: int, max_pixels: int) -> tuple[int, int]:
    """Returns the numbers of pixels and bytes of an image."""
    data = records.read(index)
    if isinstance(data, bytes):
        width, height = decode.read_size(data, max_pixels)
        return width * height, len(data)
    height, width = np.shape(data)[:2]
    return height * width, np.asarray(data).nbytes
