"""Relevance by the weighted number of labels that two records share.

For example the labels digit, parity and size: `{"digit": 1.0, "parity": 0.3}`.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from deeprank_jax.data.named_labels import find_labels
from deeprank_jax.data.records import Records
from deeprank_jax.relevance.base import Array

_OPTION = "config.relevance.weights"


class Attributes:
    """The sum of the weights of the labels that agree.

    The label of a level includes all coarser ones: two records share it only if they
    share those, too. A column of `Records.columns` stands alone.
    """

    def __init__(self, weights: Mapping[str, float]):
        """Creates the relevance.

        Args:
          weights: Weight of each label by the name of its level or column, at least
            0, and not all 0.

        Raises:
          ValueError: There is no weight, or one is negative or not finite.
        """
        self.weights = {name: float(weight) for name, weight in weights.items()}
        values = np.array(list(self.weights.values()))
        is_valid = np.isfinite(values).all() and (values >= 0).all()
        if not is_valid or not (values > 0).any():
            raise ValueError(
                "weights must be finite, at least 0 and not all 0, "
                f"got {self.weights or 'none'}."
            )

    def attributes(self, splits: Sequence[Records]) -> list[np.ndarray]:
        """Returns the labels, `[N, A]` int32 for each split, in the weights' order.

        Raises:
          DataError: The records have no label of a name, or one record lacks it.
        """
        return [
            np.stack(
                [find_labels(records, name, _OPTION).values for name in self.weights],
                axis=1,
            )
            for records in splits
        ]

    def pairwise(self, a: Array, b: Array) -> Array:
        """Returns the relevance of `[..., A]` to `[..., A]`, as `[...]`."""
        return sum(
            weight * (a[..., i] == b[..., i])
            for i, weight in enumerate(self.weights.values())
        )

    def total(self, attributes: np.ndarray) -> np.ndarray:
        """Returns `[N]` float64, in closed form from the counts of each label.

        Args:
          attributes: `[N, A]` ints, one row per record.
        """
        totals = np.zeros(len(attributes))
        for column, weight in zip(attributes.T, self.weights.values(), strict=True):
            _, label, counts = np.unique(
                column, return_inverse=True, return_counts=True
            )
            totals += weight * (counts[label] - 1)
        return totals
