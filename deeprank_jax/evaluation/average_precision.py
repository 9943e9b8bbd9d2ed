"""Average precision from the ranks of the relevant records."""

import numpy as np


def average_precision(hits: np.ndarray, num_relevant: np.ndarray) -> np.ndarray:
    r"""Returns the average precision at R of each ranking.

    .. math::
      AP@R = \frac{1}{R} \sum_{i=1}^{R} P@i \cdot hit_i

    Args:
      hits: `[Q, K]` bool, True where the i-th nearest is relevant; `K` is at least the
        largest `num_relevant`.
      num_relevant: `[Q]` int, R, the number of relevant records in the gallery.

    Returns:
      `[Q]` float64 in `[0, 1]`; 0 where nothing is relevant.

    References:
      Musgrave et al., A Metric Learning Reality Check, 2020,
      https://arxiv.org/abs/2003.08505.
    """
    ranks = np.arange(1, hits.shape[1] + 1)
    within_r = hits & (ranks <= num_relevant[:, None])
    precision = np.cumsum(hits, axis=1) / ranks
    return (precision * within_r).sum(axis=1) / np.maximum(num_relevant, 1)
