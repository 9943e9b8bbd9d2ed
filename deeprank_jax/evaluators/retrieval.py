"""Does searching a split with its own records bring up the right ones first?

Leave-one-out: each record is searched for among all others. Distances are squared
Euclidean and equal distances rank in record order. Memory grows with the number of
records, but not with that times the size of a class.
"""

from collections.abc import Sequence

import numpy as np

from deeprank_jax.evaluators.scores import (
    Evaluator,
    QueryScores,
    check_rows,
    mean_over,
    sum_over,
)
from deeprank_jax.nearest import average_precision, neighbor_blocks
from deeprank_jax.relevance import Relevance

# Records whose relevance to the whole gallery is held at a time.
_BLOCK = 256


class Retrieval(Evaluator):
    """Recall@k, MAP@R and graded nDCG@k on one split."""

    def __init__(
        self,
        labels: np.ndarray,
        relevance: Relevance,
        *,
        attributes: np.ndarray | None = None,
        ks: Sequence[int] = (1, 5, 10),
    ):
        """Creates the evaluator.

        Args:
          labels: `[N, L]` ints, from coarse to fine; two records are of one class if
            their last label is the same.
          relevance: the gains of nDCG, e.g. `Hierarchy(gains)`; gains are linear, so
            a gain of 1 is worth ten gains of 0.1 at the same rank.
          attributes: `[N, A]`, what the relevance compares; None for the labels.
          ks: the cut-offs, each at least 1. A cut-off larger than the number of other
            records takes them all.

        Raises:
          ValueError: there is no cut-off, or one is less than 1.
        """
        if not ks or min(ks) < 1:
            raise ValueError(f"ks must be cut-offs of at least 1, got {tuple(ks)}.")
        self._labels = np.asarray(labels)
        self._attributes = self._labels if attributes is None else attributes
        self._relevance = relevance
        self._ks = tuple(sorted(ks))

    def measure(
        self,
        embeddings: np.ndarray,
        where: np.ndarray | None = None,
        *,
        queries: np.ndarray | None = None,
    ) -> dict[str, QueryScores]:
        """Measures `recall@k`, `map@r`, `ndcg@k` and `num_queries`, query by query.

        Recall@k is the share of queries with one of their class among the k nearest,
        MAP@R the mean of `average_precision`; both over the queries whose class has
        another record, which `num_queries` counts. nDCG@k compares the gains of the k
        nearest, discounted by `1 / log2(1 + rank)`, with those of the best ranking of
        the whole gallery, and is a mean over the queries for which any record gains.

        Args:
          embeddings: `[N, D]` float, a row for each record.
          where: optional `[N]` bool; the others are neither query nor gallery.
          queries: optional `[N, D]` float, what a query is; None for `embeddings`.

        Returns:
          For each metric the scores of the `N` records as queries.

        Raises:
          ValueError: there is not one row for each record, or one is not finite.
        """
        embeddings, where, queries = check_rows(
            len(self._labels), embeddings, where, queries
        )
        attributes, classes = self._attributes[where], self._labels[where, -1]
        num_relevant = _class_sizes(classes) - 1
        recalled, precision, dcg = self._measure(
            queries[where], embeddings[where], classes, attributes, num_relevant
        )
        has_relevant = num_relevant > 0
        ideal = self._ideal_dcg(attributes)

        def spread(over, values: np.ndarray, counted: np.ndarray) -> QueryScores:
            whole = np.zeros((2, len(where)))
            whole[:, where] = values, counted
            return over(whole[0], whole[1] > 0)

        found = {}
        for k, values in zip(self._ks, recalled, strict=True):
            found[f"recall@{k}"] = spread(mean_over, values, has_relevant)
        found["map@r"] = spread(mean_over, precision, has_relevant)
        for k, values, best in zip(self._ks, dcg, ideal, strict=True):
            share = values / np.where(best > 0, best, 1.0)
            found[f"ndcg@{k}"] = spread(mean_over, share, best > 0)
        found["num_queries"] = spread(sum_over, has_relevant, has_relevant)
        return found

    def _measure(
        self,
        queries: np.ndarray,
        embeddings: np.ndarray,
        classes: np.ndarray,
        attributes: np.ndarray,
        num_relevant: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Measures every query, a block of them at a time.

        Returns:
          For each cut-off `[K, N]` bool, whether one of the class is among the
          nearest; `[N]` average precision at R; for each cut-off `[K, N]` the
          discounted gain.
        """
        size = len(classes)
        recalled = np.zeros((len(self._ks), size), bool)
        precision, dcg = np.zeros(size), np.zeros((len(self._ks), size))
        max_k = min(self._ks[-1], max(size - 1, 0))
        depth = max(max_k, num_relevant.max(initial=0))
        if not depth:  # A single record has nobody to be compared with.
            return recalled, precision, dcg
        blocks = neighbor_blocks(queries, embeddings, depth, exclude_self=True)
        for rows, _, neighbors in blocks:
            hits = classes[neighbors] == classes[rows, None]
            precision[rows] = average_precision(hits, num_relevant[rows])
            gains = self._relevance.pairwise(
                attributes[rows, None], attributes[neighbors[:, :max_k]]
            )
            for i, k in enumerate(self._ks):
                recalled[i, rows] = hits[:, :k].any(axis=1)
                dcg[i, rows] = _dcg(gains[:, :k])
        return recalled, precision, dcg

    def _ideal_dcg(self, attributes: np.ndarray) -> np.ndarray:
        """Returns `[K, N]`, for each cut-off what the best ranking would gain."""
        # Records with equal attributes gain equally from the others.
        _, first, inverse = np.unique(
            attributes, axis=0, return_index=True, return_inverse=True
        )
        max_k = min(self._ks[-1], max(len(attributes) - 1, 0))
        ideal = np.zeros((len(self._ks), len(first)))
        for start in range(0, len(first) if max_k else 0, _BLOCK):
            rows = first[start : start + _BLOCK]
            gains = np.array(
                self._relevance.pairwise(attributes[rows, None], attributes[None]),
                np.float64,
            )
            gains[np.arange(len(rows)), rows] = -np.inf
            largest = np.partition(gains, -max_k, axis=1)[:, -max_k:]
            largest = np.sort(largest, axis=1)[:, ::-1]
            for i, k in enumerate(self._ks):
                ideal[i, start : start + _BLOCK] = _dcg(largest[:, :k])
        return ideal[:, inverse]


def _class_sizes(labels: np.ndarray) -> np.ndarray:
    """Returns `[N]`, how many records share each record's label."""
    _, label, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return counts[label]


def _dcg(gains: np.ndarray) -> np.ndarray:
    """Returns `[Q]`, the discounted sum of the gains `[Q, K]` of a ranking."""
    return (gains / np.log2(2.0 + np.arange(gains.shape[1]))).sum(axis=1)
