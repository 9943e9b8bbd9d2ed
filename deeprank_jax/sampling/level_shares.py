"""Shares of positives and negatives by the deepest label level that they share."""

from collections.abc import Sequence

import numpy as np


def level_shares(
    labels: np.ndarray, level_names: Sequence[str], num_positives: int = 1
) -> dict[str, float]:
    """Returns the share of positives and negatives by the deepest level shared.

    Args:
      labels: `[B, n, L]` ints, anchor, positives and negatives on axis 1; sharing a
        level means sharing all coarser ones.
      level_names: Names of the `L` levels, from coarse to fine.
      num_positives: Number of positives of each anchor.

    Returns:
      A share in [0, 1] for each of `positives/<level>`, `negatives/<level>` and each
      `<level>` and `none`, finest first; all 0 of none.

    Raises:
      ValueError: The number of names differs from the number of levels.
    """
    if len(level_names) != labels.shape[-1]:
        raise ValueError(
            f"level_names must name the {labels.shape[-1]} levels, got "
            f"{tuple(level_names)}."
        )
    names = ("none", *level_names)
    depth = np.sum(labels[:, :1] == labels[:, 1:], axis=-1)
    shares = {}
    sides = {
        "positives": depth[:, :num_positives],
        "negatives": depth[:, num_positives:],
    }
    for side, depths in sides.items():
        counts = np.bincount(depths.ravel(), minlength=len(names))
        for level in reversed(range(len(names))):
            shares[f"{side}/{names[level]}"] = float(
                counts[level] / max(1, depths.size)
            )
    return shares
