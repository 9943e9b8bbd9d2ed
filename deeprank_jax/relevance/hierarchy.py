"""Relevance by the deepest level of a label hierarchy that two records share."""

from collections.abc import Sequence
import itertools

import numpy as np

from deeprank_jax.errors import ConfigError
from deeprank_jax.relevance.base import Array, LabelRelevance


class Hierarchy(LabelRelevance):
    """The relevance of the finest level that two records share, 0 if they share none.

    Records that share the label of a level share those of all coarser levels.
    """

    def __init__(self, levels: Sequence[float]):
        """Creates the relevance.

        Args:
          levels: Relevance for each level, from coarse to fine; that of two records
            that share it and no finer one, at least 0 and not decreasing.

        Raises:
          ValueError: The levels are empty, negative, not finite or decreasing.
        """
        self.levels = tuple(float(level) for level in levels)
        ordered = all(a <= b for a, b in itertools.pairwise((0.0, *self.levels)))
        if not self.levels or not ordered or not np.isfinite(self.levels).all():
            raise ValueError(
                "levels must be finite, at least 0 and not decreasing from coarse to "
                f"fine, got {tuple(levels)}."
            )

    def pairwise(self, a: Array, b: Array) -> Array:
        """Returns the relevance of `[..., A]` to `[..., A]`, as `[...]`.

        Raises:
          ConfigError: The number of attributes is not that of the levels.
        """
        self._check(a.shape[-1])
        xp = a.__array_namespace__()
        depth = xp.sum(xp.astype(a == b, xp.int32), axis=-1)
        return xp.take(xp.asarray((0.0, *self.levels)), depth, axis=0)

    def of_depth(self, num_levels: int) -> tuple[float, ...]:
        """Returns 0 and the levels.

        Raises:
          ConfigError: The number of attributes is not that of the levels.
        """
        self._check(num_levels)
        return (0.0, *self.levels)

    def total(self, attributes: np.ndarray) -> np.ndarray:
        """Returns `[N]` float64, in closed form from the counts of each label.

        Args:
          attributes: `[N, A]` ints, one row per record.
        """
        self._check(attributes.shape[-1])
        totals = np.zeros(len(attributes))
        for level, step in enumerate(np.diff(self.levels, prepend=0.0)):
            _, label, counts = np.unique(
                attributes[:, level], return_inverse=True, return_counts=True
            )
            totals += step * (counts[label] - 1)
        return totals

    def _check(self, num_attributes: int) -> None:
        if num_attributes != len(self.levels):
            raise ConfigError(
                f"config.relevance.levels holds values for {len(self.levels)} levels, "
                f"but the records have {num_attributes}; give one value for each "
                "level, from coarse to fine."
            )
