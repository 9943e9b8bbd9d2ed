"""Hierarchical average precision of whole rankings.

Every record is ranked for every query, so that time grows with `N^2 log N`: this
evaluator is off by default.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from deeprank_jax.evaluation.rankings import distance_blocks
from deeprank_jax.evaluation.scores import (
    QueryEvaluator,
    QueryScores,
    check_gains,
    check_rows,
    mean_over,
    sum_over,
)
from deeprank_jax.relevance import Relevance


class HierarchicalAP(QueryEvaluator):
    """Hierarchical average precision, for any relevance."""

    METRICS: ClassVar[Mapping[str, str]] = {
        "h_ap": "Hierarchical average precision: 1 if no image ranks before a more "
        "relevant one.",
        "num_queries": "Number of queries to which any image is relevant.",
    }

    def __init__(
        self,
        labels: np.ndarray,
        relevance: Relevance,
        *,
        attributes: np.ndarray | None = None,
    ):
        """Creates the evaluator.

        Args:
          labels: `[N, L]` int, labels from coarse to fine.
          relevance: Relevance of two records, e.g. `Hierarchy(gains)`; at least 0 and
            finite. That of the paper divides the value of a level by the number of
            records of the gallery on it.
          attributes: `[N, A]`, the values compared by the relevance; None for the
            labels.
        """
        self._attributes = np.asarray(labels if attributes is None else attributes)
        self._relevance = relevance

    def measure(
        self,
        embeddings: np.ndarray,
        where: np.ndarray | None = None,
        *,
        queries: np.ndarray | None = None,
    ) -> dict[str, QueryScores]:
        r"""Measures `h_ap` and `num_queries`, query by query.

        .. math::
          \text{H-AP} = \frac{1}{\sum_k r_k} \sum_{k: r_k > 0}
          \frac{\sum_{j \le k} \min(r_j, r_k)}{k}

        `k` runs over the ranks of all other records and `r_k` is the relevance of the
        record at rank `k`. It is 1 if no record ranks before a more relevant one, and
        average precision where relevance is only 0 or 1. The mean is over the queries
        to which any record is relevant. Equal distances rank in gallery order.

        Args:
          embeddings: `[N, D]` float, one row per record.
          where: Optional `[N]` bool, the records that are queries and gallery.
          queries: Optional `[N, D]` float, the records as queries; None for
            `embeddings`.

        Returns:
          For each metric the scores of the `N` records as queries.

        Raises:
          ValueError: There is not one row per record, one is not finite, or a
            relevance is negative or not finite.

        References:
          Ramzi et al., Hierarchical Average Precision Training for Pertinent Image
          Retrieval, 2022, https://arxiv.org/abs/2207.04873.
        """
        embeddings, where, queries = check_rows(
            len(self._attributes), embeddings, where, queries
        )
        embeddings, queries = embeddings[where], queries[where]
        attributes, records = self._attributes[where], np.flatnonzero(where)
        values, is_query = np.zeros(len(where)), np.zeros(len(where), bool)
        blocks = distance_blocks(queries, embeddings, np.arange(len(records)))
        for rows, distances in blocks:
            gains = np.array(
                self._relevance.pairwise(attributes[rows, None], attributes[None]),
                np.float64,
            )
            check_gains(gains, "hierarchical average precision")
            gains[np.arange(len(rows)), rows] = 0.0  # The query itself ranks last.
            order = np.argsort(distances, axis=1, kind="stable")
            ranked = np.take_along_axis(gains, order, axis=1)
            values[records[rows]] = hierarchical_average_precision(ranked)
            is_query[records[rows]] = ranked.any(axis=1)
        return {
            "h_ap": mean_over(values, is_query),
            "num_queries": sum_over(is_query, is_query),
        }


def hierarchical_average_precision(gains: np.ndarray) -> np.ndarray:
    """Returns the H-AP of each ranking, as `HierarchicalAP` defines it.

    Args:
      gains: `[Q, N]` finite floats, at least 0, in ranked order.

    Returns:
      `[Q]` float64 in `[0, 1]`; 0 where nothing is relevant.
    """
    # Only gains above 0 are summed: drop the others, but keep the ranks.
    row, column = np.nonzero(gains)
    num_relevant = np.bincount(row, minlength=len(gains))
    place = np.arange(len(row)) - (np.cumsum(num_relevant) - num_relevant)[row]
    shape = len(gains), num_relevant.max(initial=0)
    closed, ranks = np.zeros(shape), np.ones(shape)
    closed[row, place], ranks[row, place] = gains[row, column], 1 + column
    total = np.where(num_relevant > 0, closed.sum(axis=1), 1.0)
    return (shared_gains(closed) / ranks).sum(axis=1) / total


def shared_gains(gains: np.ndarray) -> np.ndarray:
    """Returns for each rank k the sum of `min(gain_j, gain_k)` over the ranks j <= k.

    By halves, as in merge sort: `N log N` steps per row.

    Args:
      gains: `[Q, N]` floats, gains of at least 0 in ranked order.

    Returns:
      `[Q, N]` float64.
    """
    num_rows, num = gains.shape
    size = 1 << max(num - 1, 0).bit_length()
    padded = np.zeros((num_rows, size))
    padded[:, :num] = gains
    # Ranks in the order of their gains; the bits of a rank tell its half.
    ranks = np.argsort(padded, axis=1, kind="stable")
    sums = np.take_along_axis(padded, ranks, axis=1)
    shared = padded.copy()
    while size > 1:
        half = size // 2
        ranks, sums = ranks.reshape(-1, size), sums.reshape(-1, size)
        is_right = (ranks & half) > 0
        left_gains = np.where(is_right, 0.0, sums)
        # Smaller gains of the left half count in full, larger ones as much as the gain
        # of the right half.
        smaller = np.cumsum(left_gains, axis=1)
        num_larger = half - np.cumsum(~is_right, axis=1)
        added = (smaller + num_larger * sums)[is_right].reshape(num_rows, -1)
        at = ranks[is_right].reshape(num_rows, -1)
        np.put_along_axis(
            shared, at, np.take_along_axis(shared, at, axis=1) + added, axis=1
        )
        ranks, sums = (
            np.stack([x[~is_right].reshape(-1, half), x[is_right].reshape(-1, half)], 1)
            for x in (ranks, sums)
        )
        size = half
    return shared[:, :num]
