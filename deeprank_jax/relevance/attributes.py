"""Relevance by how many labels of several kinds two records share, and by which.

E.g. digit, parity and size: `{"digit": 1.0, "parity": 0.3, "size": 0.2}`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


class Attributes:
    """The sum of the weights of those labels that agree.

    The label of a level stands for the whole path down to it, so that two records
    share it only where they share the coarser ones too; a column of `Records.columns`
    stands for itself.
    """

    def __init__(self, weights: Mapping[str, float]):
        """Creates the relevance.

        Args:
          weights: by the names of levels or columns, at least 0, one of them above.

        Raises:
          ValueError: there is no weight, or one is negative or not finite.
        """
        self.weights = {name: float(weight) for name, weight in weights.items()}
        values = np.array(list(self.weights.values()))
        fine = np.isfinite(values).all() and (values >= 0).all()
        if not fine or not (values > 0).any():
            raise ValueError(
                "config.relevance.weights must be finite, at least 0 and not all 0, "
                f"got {self.weights or 'none'}."
            )

    def attributes(self, splits: Sequence[Any]) -> list[np.ndarray]:
        """Returns the labels, `[N, A]` int32 for each split, in the weights' order.

        Raises:
          ValueError: the records have no label of that name, or one lacks it.
        """
        return [
            np.stack([_labels(records, name) for name in self.weights], axis=1)
            for records in splits
        ]

    def pairwise(self, a: Any, b: Any) -> Any:
        """Returns the relevance of `[..., A]` to `[..., A]`, as `[...]`."""
        return sum(
            weight * (a[..., i] == b[..., i])
            for i, weight in enumerate(self.weights.values())
        )

    def total(self, attributes: np.ndarray) -> np.ndarray:
        """Returns `[N]` float64, in closed form from the counts of each label.

        Args:
          attributes: `[N, A]` ints.
        """
        totals = np.zeros(len(attributes))
        for column, weight in zip(attributes.T, self.weights.values(), strict=True):
            _, label, counts = np.unique(
                column, return_inverse=True, return_counts=True
            )
            totals += weight * (counts[label] - 1)
        return totals


def _labels(records: Any, name: str) -> np.ndarray:
    if name in records.level_names:
        return records.labels[:, records.level_names.index(name)]
    if name not in records.columns:
        known = (*records.level_names, *records.columns)
        raise ValueError(
            f"config.relevance.weights names {name!r}, but {records.name} has the "
            f"labels {', '.join(known)}; choose among them, or, of a TFDS dataset, "
            "name it in config.data.source.columns."
        )
    labels = records.columns[name]
    missing = np.flatnonzero(labels < 0)
    if len(missing):
        raise ValueError(
            f"{records.name}: {len(missing):,} records have no {name}, e.g. "
            f"{records.describe(int(missing[0]))!r}; fill it in, or take {name} out of "
            "config.relevance.weights."
        )
    return labels
