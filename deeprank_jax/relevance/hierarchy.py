"""Relevance by the deepest level of a label hierarchy that two records share."""

from collections.abc import Sequence
import itertools
from typing import Any

import numpy as np

from deeprank_jax.relevance.base import LabelRelevance


class Hierarchy(LabelRelevance):
    """A relevance for each level; records that share no level have relevance 0.

    Attributes must be those of `Records`: sharing the label of a level means sharing
    all coarser ones.
    """

    def __init__(self, levels: Sequence[float]):
        """Creates the relevance.

        Args:
          levels: for each level, from coarse to fine, the relevance of two records
            that share it and none finer; at least 0 and not decreasing.

        Raises:
          ValueError: the levels are empty, negative, not finite or decreasing.
        """
        self.levels = tuple(float(level) for level in levels)
        ordered = all(a <= b for a, b in itertools.pairwise((0.0, *self.levels)))
        if not self.levels or not ordered or not np.isfinite(self.levels).all():
            raise ValueError(
                "levels must be finite, at least 0 and not decreasing from coarse to "
                f"fine, got {tuple(levels)}."
            )

    def pairwise(self, a: Any, b: Any) -> Any:
        """Returns the relevance of `[..., A]` to `[..., A]`, as `[...]`.

        Raises:
          ValueError: there is not one attribute for each level.
        """
        self._check(a.shape[-1])
        xp = a.__array_namespace__()
        depth = xp.sum(xp.astype(a == b, xp.int32), axis=-1)
        return xp.take(xp.asarray((0.0, *self.levels)), depth, axis=0)

    def of_depth(self, num_levels: int) -> tuple[float, ...]:
        """Returns 0 and the levels.

        Raises:
          ValueError: there is not one attribute for each level.
        """
        self._check(num_levels)
        return (0.0, *self.levels)

    def total(self, attributes: np.ndarray) -> np.ndarray:
        """Returns `[N]` float64, in closed form from the counts of each label.

        Args:
          attributes: `[N, A]` ints.
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
            raise ValueError(
                f"The hierarchy has relevances for {len(self.levels)} levels, the "
                f"records have {num_attributes}: give config.relevance.levels one "
                "value for each level, from coarse to fine."
            )
