"""Does a whole ranking bring the more relevant before the less relevant?

This needs all of each ranking: time grows with the square of the number of records,
and its logarithm, so that it is measured when asked for and not during training.
"""

import numpy as np

from deeprank_jax.evaluation.rankings import distance_blocks
from deeprank_jax.evaluation.scores import (
    Evaluator,
    QueryScores,
    check_gains,
    check_rows,
    mean_over,
    sum_over,
)
from deeprank_jax.relevance import Relevance


class HierarchicalAP(Evaluator):
    """Hierarchical average precision, for any relevance."""

    def __init__(
        self,
        labels: np.ndarray,
        relevance: Relevance,
        *,
        attributes: np.ndarray | None = None,
    ):
        """Creates the evaluator.

        Args:
          labels: `[N, L]` ints, from coarse to fine.
          relevance: how relevant one record is to another, e.g. `Hierarchy(gains)`;
            at least 0 and finite. The paper's own divides the value of a level by how
            many records of the gallery are on it.
          attributes: `[N, A]`, what the relevance compares; None for the labels.
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

        `k` being the ranks of all other records and `r_k` the relevance of the one at
        rank `k`: 1 if none is ranked before a more relevant one, and average precision
        where relevance is only 0 or 1. The mean is over the queries to which any
        record is relevant. Equal distances rank in gallery order.

        Args:
          embeddings: `[N, D]` float, a row for each record.
          where: optional `[N]` bool; the others are neither query nor gallery.
          queries: optional `[N, D]` float, what a query is; None for `embeddings`.

        Returns:
          For each metric the scores of the `N` records as queries.

        Raises:
          ValueError: there is not one row for each record, one is not finite, or a
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
        values, counted = np.zeros(len(where)), np.zeros(len(where), bool)
        blocks = distance_blocks(queries, embeddings, np.arange(len(records)))
        for rows, distances in blocks:
            gains = np.array(
                self._relevance.pairwise(attributes[rows, None], attributes[None]),
                np.float64,
            )
            check_gains(gains, "hierarchical average precision")
            gains[np.arange(len(rows)), rows] = 0.0  # It ranks last, and is no record.
            order = np.argsort(distances, axis=1, kind="stable")
            ranked = np.take_along_axis(gains, order, axis=1)
            values[records[rows]] = hierarchical_average_precision(ranked)
            counted[records[rows]] = ranked.any(axis=1)
        return {
            "h_ap": mean_over(values, counted),
            "num_queries": sum_over(counted, counted),
        }


def hierarchical_average_precision(gains: np.ndarray) -> np.ndarray:
    """Returns the H-AP of each ranking, as `HierarchicalAP` defines it.

    Args:
      gains: `[Q, N]` finite floats, at least 0, in ranked order.

    Returns:
      `[Q]` float64 in `[0, 1]`; 0 where nothing is relevant.
    """
    # Only what gains is summed: close up the ranking, but keep the ranks.
    row, column = np.nonzero(gains)
    num_relevant = np.bincount(row, minlength=len(gains))
    place = np.arange(len(row)) - (np.cumsum(num_relevant) - num_relevant)[row]
    shape = len(gains), num_relevant.max(initial=0)
    closed, ranks = np.zeros(shape), np.ones(shape)
    closed[row, place], ranks[row, place] = gains[row, column], 1 + column
    total = np.where(num_relevant > 0, closed.sum(axis=1), 1.0)
    return (shared_gains(closed) / ranks).sum(axis=1) / total


def shared_gains(gains: np.ndarray) -> np.ndarray:
    """Returns for each rank the sum of `min(gain, gain here)` up to it.

    By halves, as merge sort goes: in `N log N` steps for each row.

    Args:
      gains: `[Q, N]` floats, at least 0, in ranked order.

    Returns:
      `[Q, N]` float64.
    """
    num_rows, num = gains.shape
    size = 1 << max(num - 1, 0).bit_length()
    padded = np.zeros((num_rows, size))
    padded[:, :num] = gains
    # Sorted by gain; of which rank each is, its bits say in which half it lies.
    ranks = np.argsort(padded, axis=1, kind="stable")
    sums = np.take_along_axis(padded, ranks, axis=1)
    shared = padded.copy()
    while size > 1:
        half = size // 2
        ranks, sums = ranks.reshape(-1, size), sums.reshape(-1, size)
        is_right = (ranks & half) > 0
        left = np.where(is_right, 0.0, sums)
        # Of the left half: those that gain no more count whole, the others as much as
        # the one of the right half does.
        smaller = np.cumsum(left, axis=1)
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
