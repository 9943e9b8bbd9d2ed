"""Order of the copies of one image: the one to keep first, the others by distance."""

import numpy as np

from deeprank_jax.data import decode
from deeprank_jax.data.records import Records


def order_copies(
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
