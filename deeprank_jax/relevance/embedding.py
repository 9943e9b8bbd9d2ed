"""Relevance from how near precomputed vectors of two records lie.

Convention: `D` is the squared Euclidean distance, as in the paper. NumPy compares a
block of anchors by one matrix product; JAX, whose products are rounded on some devices,
by their differences, which it need not store.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from deeprank_jax.relevance import vectors

KERNELS = ("exponential", "linear", "cosine")
# Below this share of the two norms, a product has lost a distance to rounding.
_CANCELLED = 0.01
_PAIRS = 2**14


class Embedding:
    """A kernel of the vectors in a file.

    `"exponential"` is `exp(-D / scale)`, `"linear"` is `max(0, 1 - D / scale)` and
    `"cosine"` is the cosine of the angle between two vectors, or 0 where it is wide.
    """

    def __init__(self, file: str, kernel: str = "exponential", scale: float = 1.0):
        """Creates the relevance; the file is read by `attributes`.

        Args:
          file: of vectors, see `vectors.read_vectors`; `{split}` in it stands for the
            split.
          kernel: one of `KERNELS`.
          scale: the squared distance that counts, above 0; `"cosine"` has none.

        Raises:
          ValueError: there is no such kernel, or the scale cannot be.
        """
        if kernel not in KERNELS:
            raise ValueError(
                f"config.relevance.kernel is {kernel!r}; choose one of "
                f"{', '.join(KERNELS)}."
            )
        if not 0 < scale < np.inf:
            raise ValueError(
                f"config.relevance.scale must be above 0 and finite, got {scale}."
            )
        self.file = file
        self.kernel = kernel
        self.scale = float(scale)

    def attributes(self, splits: Sequence[Any]) -> list[np.ndarray]:
        """Returns the vectors, `[N, D]` float32 for each split; of length 1 for cosine.

        Raises:
          ValueError: as `vectors.match_splits`, or a vector has no direction.
        """
        found = vectors.match_splits(self.file, splits)
        if self.kernel != "cosine":
            return found
        return [_directions(x, r) for x, r in zip(found, splits, strict=True)]

    def pairwise(self, a: Any, b: Any) -> Any:
        """Returns the relevance of `[..., D]` to `[..., D]`, as `[...]`."""
        xp = a.__array_namespace__()
        if self.kernel == "cosine":
            return xp.clip(inner_products(a, b), 0.0, 1.0)
        scaled = squared_distances(a, b) / self.scale
        if self.kernel == "linear":
            return xp.maximum(1.0 - scaled, xp.zeros_like(scaled))
        return xp.exp(-scaled)


def squared_distances(a: Any, b: Any) -> Any:
    """Returns `||a - b||^2` of `[..., D]` and `[..., D]`, as `[...]`, at least 0.

    Equal vectors are 0 apart, also where a block of them is compared.
    """
    if not _is_block(a, b):
        difference = a - b
        return inner_products(difference, difference)
    # Around their middle, less of a distance is lost to the size of the vectors.
    x, y = a[:, 0], b[0]
    middle = y.mean(axis=0)
    x, y = x - middle, y - middle
    norms = np.vecdot(x, x)[:, None] + np.vecdot(y, y)
    distances = x @ y.T
    distances *= -2
    distances += norms
    norms *= _CANCELLED
    lost = np.flatnonzero(distances < norms)
    for first in range(0, len(lost), _PAIRS):
        part = lost[first : first + _PAIRS]
        rows, columns = np.divmod(part, len(y))
        difference = a[rows, 0] - b[0, columns]
        distances.ravel()[part] = np.vecdot(difference, difference)
    return distances


def inner_products(a: Any, b: Any) -> Any:
    """Returns the inner products of `[..., D]` and `[..., D]`, as `[...]`."""
    if _is_block(a, b):
        return a[:, 0] @ b[0].T
    if isinstance(a, np.ndarray):
        return np.vecdot(a, b)
    return a.__array_namespace__().sum(a * b, axis=-1)


def _is_block(a: Any, b: Any) -> bool:
    """Returns whether NumPy is asked for all pairs of `[n, 1, D]` and `[1, m, D]`."""
    return (
        isinstance(a, np.ndarray)
        and a.ndim == b.ndim == 3
        and a.shape[1] == b.shape[0] == 1
        and b.shape[1] > 0
    )


def _directions(values: np.ndarray, records: Any) -> np.ndarray:
    norms = np.sqrt(np.vecdot(values, values, dtype=np.float64))
    zero = np.flatnonzero(norms == 0)
    if len(zero):
        raise ValueError(
            f"{records.name}: the vector of {records.describe(int(zero[0]))!r} is 0 "
            "and has no direction; take another config.relevance.kernel, or leave the "
            "record out."
        )
    return (values / norms[:, None]).astype(np.float32)
