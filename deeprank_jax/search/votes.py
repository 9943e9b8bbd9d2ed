"""Labels by vote of the nearest neighbours."""

from collections.abc import Sequence

import numpy as np


def vote(
    labels: Sequence[str], distances: np.ndarray, scale: float
) -> list[tuple[str, float]]:
    """Returns the neighbours' labels with their share of the vote, largest first.

    Each neighbour votes with `exp(-distance / scale)`.

    Args:
      labels: Labels of the `k` neighbours.
      distances: `[k]` floats, squared distances to the neighbours.
      scale: Distance at which a vote counts a third, above 0.
    """
    weights = np.exp(-(distances - np.min(distances, initial=np.inf)) / scale)
    total: dict[str, float] = {}
    for label, weight in zip(labels, weights.tolist(), strict=True):
        total[label] = total.get(label, 0.0) + weight
    total_weight = sum(total.values())
    shares = [(label, weight / total_weight) for label, weight in total.items()]
    return sorted(shares, key=lambda entry: (-entry[1], entry[0]))
