"""Means over the training images that are held out for validation."""

from collections.abc import Callable, Iterator

import numpy as np

from deeprank_jax.data.reader import ImageReader
from deeprank_jax.distributed import processes
from deeprank_jax.progress import Bar


def mean_over_held_out(
    held_out: np.ndarray,
    reader: ImageReader,
    outputs_fn: Callable[[np.ndarray], np.ndarray],
    rate: Callable[[np.ndarray, np.ndarray], np.ndarray],
    batch_size: int,
    *,
    num_columns: int,
    check: Callable[[], None],
) -> np.ndarray:
    """Returns means over the held-out images that can be read.

    Each process rates its share of the images, and all get the whole result.

    Args:
      held_out: `[M]` indices of the held-out records.
      reader: Images of the training split.
      outputs_fn: Function from uint8 images `[B, H, W, 3]` to the network's outputs
        `[B, K]`.
      rate: Function from outputs `[b, K]` and indices of records `[b]` to `[b, C]` 0 or
        1.
      batch_size: Images per batch, `B`.
      num_columns: Number of means, `C`.
      check: Function that is called for each batch, and may raise to end early.

    Returns:
      `[C]` shares; NaN without any image.
    """
    rated = np.zeros((len(held_out), num_columns), bool)
    readable = np.zeros(len(held_out), bool)
    with processes.interrupted_together():
        for rows in _batches(*processes.own_share(len(held_out)), batch_size):
            check()
            images, readable[rows] = reader.load(held_out[rows])
            # Padded, so that the last batch needs no program of its own.
            padding = ((0, batch_size - len(images)), *((0, 0),) * 3)
            outputs = outputs_fn(np.pad(images, padding))[: len(images)]
            rated[rows] = rate(outputs, held_out[rows])
    rated, readable = map(processes.gather_shares, (rated, readable))
    if not readable.any():
        return np.full(num_columns, np.nan)
    return rated[readable].mean(axis=0)


def _batches(start: int, stop: int, batch_size: int) -> Iterator[slice]:
    """Yields the rows of each batch, with a progress bar."""
    bar = {"desc": "held out", "unit": "batch", "leave": False}
    starts = range(start, stop, batch_size)
    for first in Bar(starts, **bar, shown=processes.is_first()):
        yield slice(first, min(first + batch_size, stop))
