"""Relevance by the distance of precomputed vectors of two records.

Convention: `D` is the squared Euclidean distance, as in the paper. NumPy compares a
block of anchors by one matrix product. JAX, whose products are rounded on some devices,
uses the differences, which it need not store.
"""

from collections.abc import Sequence

import numpy as np

from deeprank_jax.data.records import Records
from deeprank_jax.errors import DataError
from deeprank_jax.relevance import vectors
from deeprank_jax.relevance.base import Array

KERNELS = ("exponential", "linear", "cosine")
# A distance below this share of the two norms is lost to rounding in a product.
_CANCELLED = 0.01
_PAIRS = 2**14


class Embedding:
    """A kernel of the vectors in a file.

    `"exponential"` is `exp(-D / scale)`, `"linear"` is `max(0, 1 - D / scale)` and
    `"cosine"` is the cosine of the angle between two vectors, at least 0.
    """

    def __init__(
        self, file: str, kernel: str = "exponential", scale: float | None = None
    ):
        """Creates the relevance; the file is read by `attributes`.

        Args:
          file: Path of a file of vectors (.parquet, .npz or .npy), `{split}` standing
            for the split; see `vectors.read_vectors`.
          kernel: Name of a kernel in `KERNELS`.
          scale: Unit of the squared distance, above 0; None for 1. `"cosine"` has no
            scale.

        Raises:
          ValueError: The kernel is not known, or the scale is out of its range.
        """
        if kernel not in KERNELS:
            raise ValueError(
                f"kernel must be one of {', '.join(KERNELS)}, got {kernel!r}."
            )
        if kernel == "cosine" and scale is not None:
            raise ValueError(
                f"scale has no effect on kernel='cosine', got {scale}; leave it out."
            )
        scale = 1.0 if scale is None else scale
        if not 0 < scale < np.inf:
            raise ValueError(f"scale must be above 0 and finite, got {scale}.")
        self.file = file
        self.kernel = kernel
        self.scale = float(scale)

    def attributes(self, splits: Sequence[Records]) -> list[np.ndarray]:
        """Returns the vectors, `[N, D]` float32 per split; unit vectors for cosine.

        Raises:
          DataError: As in `vectors.match_splits`, or a vector has no direction.
        """
        values = vectors.match_splits(self.file, splits)
        if self.kernel != "cosine":
            return values
        return [_directions(x, r) for x, r in zip(values, splits, strict=True)]

    def pairwise(self, a: Array, b: Array) -> Array:
        """Returns the relevance of `[..., D]` to `[..., D]`, as `[...]`."""
        xp = a.__array_namespace__()
        if self.kernel == "cosine":
            return xp.clip(inner_products(a, b), 0.0, 1.0)
        scaled = squared_distances(a, b) / self.scale
        if self.kernel == "linear":
            return xp.maximum(1.0 - scaled, xp.zeros_like(scaled))
        return xp.exp(-scaled)


def squared_distances(a: Array, b: Array) -> Array:
    """Returns `||a - b||^2` of `[..., D]` and `[..., D]`, as `[...]`, at least 0.

    The distance of equal vectors is 0, in a block, too.
    """
    if not _is_block(a, b):
        difference = a - b
        return inner_products(difference, difference)
    # Centred, since small distances of long vectors are lost to rounding.
    x, y = a[:, 0], b[0]
    mean = y.mean(axis=0)
    x, y = x - mean, y - mean
    norms = np.vecdot(x, x)[:, None] + np.vecdot(y, y)
    distances = x @ y.T
    distances *= -2
    distances += norms
    norms *= _CANCELLED
    inexact = np.flatnonzero(distances < norms)
    for first in range(0, len(inexact), _PAIRS):
        pairs = inexact[first : first + _PAIRS]
        rows, columns = np.divmod(pairs, len(y))
        difference = a[rows, 0] - b[0, columns]
        distances.ravel()[pairs] = np.vecdot(difference, difference)
    return distances


def inner_products(a: Array, b: Array) -> Array:
    """Returns the inner products of `[..., D]` and `[..., D]`, as `[...]`."""
    if _is_block(a, b):
        return a[:, 0] @ b[0].T
    if isinstance(a, np.ndarray):
        return np.vecdot(a, b)
    return a.__array_namespace__().sum(a * b, axis=-1)


def _is_block(a: Array, b: Array) -> bool:
    """Returns whether these are NumPy's `[n, 1, D]` and `[1, m, D]`: all pairs."""
    return (
        isinstance(a, np.ndarray)
        and a.ndim == b.ndim == 3
        and a.shape[1] == b.shape[0] == 1
        and b.shape[1] > 0
    )


def _directions(values: np.ndarray, records: Records) -> np.ndarray:
    norms = np.sqrt(np.vecdot(values, values, dtype=np.float64))
    zero = np.flatnonzero(norms == 0)
    if len(zero):
        raise DataError(
            f"{records.name}: the vector of {records.describe(int(zero[0]))!r} is 0 "
            "and has no direction; choose another config.relevance.kernel, or remove "
            "the record."
        )
    return (values / norms[:, None]).astype(np.float32)
