"""Validation of a relevance on some of the records, before training."""

from collections.abc import Mapping

from absl import logging
import numpy as np

from deeprank_jax.data.records import Records
from deeprank_jax.errors import DataError
from deeprank_jax.relevance.base import Relevance
from deeprank_jax.relevance.within_category import WithinCategory

_NUM_RUNS, _RUN = 16, 4
# Tolerance for the same sum computed in another order, in float32.
_CLOSE = 1e-3


def check(relevance: Relevance, splits: Mapping[str, Records]) -> None:
    """Checks `pairwise` on some records of each split.

    Warns if the relevance is not symmetric, as the loss may exchange anchor and
    positive.

    Args:
      relevance: Relevance to check.
      splits: Records by split, with the attributes of the relevance attached.

    Raises:
      DataError: The relevance has the wrong shape, is negative or not finite, or
        differs between a block of pairs and single pairs.
    """
    for records in splits.values():
        if len(records):
            _check_split(relevance, records)


def _check_split(relevance: Relevance, records: Records) -> None:
    indices = _choose(records.labels)
    attributes = np.asarray(records.attributes[indices])
    size = len(indices)
    block = _compare(relevance, attributes[:, None], attributes[None], (size, size))
    bad = np.argwhere(~(np.isfinite(block) & (block >= 0)))
    if len(bad):
        i, j = bad[0].tolist()
        a, b = (records.describe(int(indices[k])) for k in (i, j))
        raise DataError(
            f"{records.name}: the relevance of {a!r} and {b!r} is {block[i, j]}; it "
            "must be finite and at least 0."
        )
    other = np.roll(np.arange(size), 1)
    rows = _compare(relevance, attributes, attributes[other], (size,))
    expected = block[np.arange(size), other]
    tolerance = {"rtol": _CLOSE, "atol": _CLOSE * block.max()}
    wrong = np.flatnonzero(~np.isclose(rows, expected, **tolerance))
    if len(wrong):
        i, j = int(wrong[0]), int(other[wrong[0]])
        a, b = (records.describe(int(indices[k])) for k in (i, j))
        raise DataError(
            f"{records.name}: the relevance of {a!r} and {b!r} is {block[i, j]} in a "
            f"block of pairs and {rows[i]} by itself; pairwise must compare along the "
            "last axis only, for any axes before it."
        )
    if not np.allclose(block, block.T, **tolerance):
        i, j = np.unravel_index(np.argmax(np.abs(block - block.T)), block.shape)
        logging.warning(
            "%s: the relevance is not symmetric: it is %g of %r to %r and %g the other "
            "way round.",
            records.name,
            block[i, j],
            records.describe(int(indices[i])),
            records.describe(int(indices[j])),
            block[j, i],
        )


def _choose(labels: np.ndarray) -> np.ndarray:
    """Returns indices of some records, in order; they share labels in groups."""
    order = np.lexsort(labels.T[::-1])
    starts = np.linspace(0, max(len(order) - _RUN, 0), _NUM_RUNS).astype(int)
    ranks = starts[:, None] + np.arange(_RUN)
    return np.sort(order[np.unique(np.minimum(ranks, len(order) - 1))])


def _compare(
    relevance: Relevance, a: np.ndarray, b: np.ndarray, shape: tuple[int, ...]
) -> np.ndarray:
    """Returns the relevance as float64, after a check of its shape."""
    if isinstance(relevance, WithinCategory):
        inside = _compare(relevance.relevance, a[..., 1:], b[..., 1:], shape)
        return np.where(a[..., 0] == b[..., 0], inside, 0.0)
    values = np.asarray(relevance.pairwise(a, b))
    if values.shape != shape or values.dtype.kind not in "iufb":
        raise DataError(
            f"The relevance of attributes of shapes {a.shape} and {b.shape} is "
            f"{values.dtype} of shape {values.shape}; pairwise must return numbers of "
            f"shape {shape}: compare along the last axis only."
        )
    return values.astype(np.float64)
