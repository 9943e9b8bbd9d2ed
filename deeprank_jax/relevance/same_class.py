"""Relevance 1 inside a class and 0 across, as in most libraries."""

import dataclasses

import numpy as np

from deeprank_jax.relevance.base import Array, LabelRelevance


@dataclasses.dataclass(frozen=True)
class SameClass(LabelRelevance):
    """Records are similar if their finest labels are the same."""

    def pairwise(self, a: Array, b: Array) -> Array:
        """Returns 1.0 where the last attribute agrees: `[..., A]`, `[..., A]`."""
        return (a[..., -1] == b[..., -1]) * 1.0

    def of_depth(self, num_levels: int) -> tuple[float, ...]:
        """Returns 1 for records that share all levels, else 0."""
        return (0.0,) * num_levels + (1.0,)

    def total(self, attributes: np.ndarray) -> np.ndarray:
        """Returns `[N]` float64, the number of other records of each record's class."""
        _, label, counts = np.unique(
            attributes[:, -1], return_inverse=True, return_counts=True
        )
        return (counts[label] - 1).astype(np.float64)
