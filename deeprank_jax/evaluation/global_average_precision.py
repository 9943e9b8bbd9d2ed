"""Global average precision of predictions for queries, of which some have no answer."""

import numpy as np


def global_average_precision(
    confidences: np.ndarray, is_correct: np.ndarray, num_answerable: int
) -> float:
    r"""Returns the average precision of all predictions in one list.

    .. math::
      \frac1M \sum_i P(i) \, \mathrm{correct}(i)

    with the precision :math:`P(i)` of the predictions that are at least as confident as
    i, and the number :math:`M` of queries that have an answer. A confident prediction
    for a query without an answer lowers it. Equal confidences share one precision.

    Args:
      confidences: `[Q]` finite floats, one prediction of each query.
      is_correct: `[Q]` bool, True where the query has an answer and it is predicted.
      num_answerable: Number `M` of queries that have an answer, at least 1.

    Raises:
      ValueError: The shapes differ, a confidence is not finite, or fewer queries have
        an answer than are correct.

    References:
      Perronnin et al., A Family of Contextual Measures of Similarity between
      Distributions with Application to Image Retrieval, 2009, section 5; the metric of
      Weyand et al., Google Landmarks Dataset v2, 2020,
      https://arxiv.org/abs/2004.01804.
    """
    confidences, is_correct = np.asarray(confidences), np.asarray(is_correct, bool)
    if confidences.ndim != 1 or confidences.shape != is_correct.shape:
        raise ValueError(
            f"confidences is {list(confidences.shape)} and is_correct "
            f"{list(is_correct.shape)}: give one of each for every query."
        )
    if not np.isfinite(confidences).all():
        raise ValueError("confidences must be finite.")
    if num_answerable < max(1, is_correct.sum()):
        raise ValueError(
            f"num_answerable must be at least 1 and the {is_correct.sum()} correct "
            f"predictions, got {num_answerable}."
        )
    order = np.argsort(-confidences, kind="stable")
    correct = np.cumsum(is_correct[order])
    # Last place of each group of equal confidences.
    ends = np.flatnonzero(np.diff(confidences[order], append=-np.inf))
    gained = np.diff(correct[ends], prepend=0)
    return float(np.sum(gained * correct[ends] / (ends + 1)) / num_answerable)
