"""Which label do the neighbours of an image speak for?"""

from collections.abc import Sequence

import numpy as np


def vote(
    labels: Sequence[str], distances: np.ndarray, scale: float
) -> list[tuple[str, float]]:
    """Returns the labels of neighbours with their share of the vote, most first.

    Each neighbour votes with `exp(-distance / scale)`.

    Args:
      labels: of the neighbours.
      distances: `[k]` squared distances to them.
      scale: the distance at which a vote counts a third, above 0.
    """
    weights = np.exp(-(distances - np.min(distances, initial=np.inf)) / scale)
    total: dict[str, float] = {}
    for label, weight in zip(labels, weights.tolist(), strict=True):
        total[label] = total.get(label, 0.0) + weight
    whole = sum(total.values())
    shares = [(label, weight / whole) for label, weight in total.items()]
    return sorted(shares, key=lambda entry: (-entry[1], entry[0]))
