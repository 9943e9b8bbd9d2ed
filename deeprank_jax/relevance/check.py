"""Does a relevance keep its promises on the records at hand? Tried before training."""

from collections.abc import Mapping
from typing import Any

from absl import logging
import numpy as np

from deeprank_jax.relevance.within_category import WithinCategory

_NUM_RUNS, _RUN = 16, 4
# Two forms of one sum may differ by as much in float32.
_CLOSE = 1e-3


def check(relevance: Any, splits: Mapping[str, Any]) -> None:
    """Tries `pairwise` on some records of each split.

    Warns of a relevance that is not symmetric, as anchor and positive may change places
    in the loss.

    Args:
      relevance: of the run.
      splits: `Records` by split, with the attributes that it compares.

    Raises:
      ValueError: the relevance has the wrong shape, is negative or not finite, or the
        two ways in which it is asked for differ.
    """
    for records in splits.values():
        if len(records):
            _check_split(relevance, records)


def _check_split(relevance: Any, records: Any) -> None:
    chosen = _choose(records.labels)
    attributes = np.asarray(records.attributes[chosen])
    size = len(chosen)
    block = _try(relevance, attributes[:, None], attributes[None], (size, size))
    bad = np.argwhere(~(np.isfinite(block) & (block >= 0)))
    if len(bad):
        i, j = bad[0].tolist()
        a, b = (records.describe(int(chosen[k])) for k in (i, j))
        raise ValueError(
            f"{records.name}: the relevance of {a!r} and {b!r} is {block[i, j]}; it "
            "must be finite and at least 0."
        )
    other = np.roll(np.arange(size), 1)
    rows = _try(relevance, attributes, attributes[other], (size,))
    expected = block[np.arange(size), other]
    tolerance = {"rtol": _CLOSE, "atol": _CLOSE * block.max()}
    wrong = np.flatnonzero(~np.isclose(rows, expected, **tolerance))
    if len(wrong):
        i, j = int(wrong[0]), int(other[wrong[0]])
        a, b = (records.describe(int(chosen[k])) for k in (i, j))
        raise ValueError(
            f"{records.name}: the relevance of {a!r} and {b!r} is {block[i, j]} in a "
            f"block of pairs and {rows[i]} by itself; pairwise must compare along the "
            "last axis only, whatever the axes before it."
        )
    if not np.allclose(block, block.T, **tolerance):
        i, j = np.unravel_index(np.argmax(np.abs(block - block.T)), block.shape)
        logging.warning(
            "%s: the relevance is not symmetric: it is %g of %r to %r and %g the other "
            "way round.",
            records.name,
            block[i, j],
            records.describe(int(chosen[i])),
            records.describe(int(chosen[j])),
            block[j, i],
        )


def _choose(labels: np.ndarray) -> np.ndarray:
    """Returns some records, in order: runs of neighbours by their labels."""
    order = np.lexsort(labels.T[::-1])
    starts = np.linspace(0, max(len(order) - _RUN, 0), _NUM_RUNS).astype(int)
    places = starts[:, None] + np.arange(_RUN)
    return np.sort(order[np.unique(np.minimum(places, len(order) - 1))])


def _try(relevance: Any, a: np.ndarray, b: np.ndarray, shape: Any) -> np.ndarray:
    """Returns the relevance as float64 of the shape it must have."""
    if isinstance(relevance, WithinCategory):
        inside = _try(relevance.relevance, a[..., 1:], b[..., 1:], shape)
        return np.where(a[..., 0] == b[..., 0], inside, 0.0)
    found = np.asarray(relevance.pairwise(a, b))
    if found.shape != shape or found.dtype.kind not in "iufb":
        raise ValueError(
            f"The relevance of attributes of shapes {a.shape} and {b.shape} is "
            f"{found.dtype} of shape {found.shape}; pairwise must return numbers of "
            f"shape {shape}: compare along the last axis only."
        )
    return found.astype(np.float64)
