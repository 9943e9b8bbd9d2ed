"""Does searching a split with its own records bring up the right ones first?

Leave-one-out: each record is searched for among all others. Distances are squared
Euclidean and equal distances rank in record order. Memory grows with the number of
records, but not with that times the size of a class.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from deeprank_jax.nearest import average_precision, neighbor_blocks
from deeprank_jax.relevance import Relevance

# Records whose relevance to the whole gallery is held at a time.
_BLOCK = 256


class Retrieval:
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

    def run(
        self, embeddings: np.ndarray, where: np.ndarray | None = None
    ) -> Iterator[tuple[str, float]]:
        """Yields `recall@k`, `map@r`, `ndcg@k` and `num_queries`.

        Recall@k is the share of queries with one of their class among the k nearest,
        MAP@R the mean of `average_precision`; both over the queries whose class has
        another record, which `num_queries` counts. nDCG@k compares the gains of the k
        nearest, discounted by `1 / log2(1 + rank)`, with those of the best ranking of
        the whole gallery, and is a mean over the queries for which any record gains.

        Args:
          embeddings: `[N, D]` float, a row for each record.
          where: optional `[N]` bool; the others are neither query nor gallery.

        Yields:
          Names and values; a mean over no queries is 0.

        Raises:
          ValueError: there is not one row for each record, or one is not finite.
        """
        if len(embeddings) != len(self._labels):
            raise ValueError(
                f"{len(embeddings)} embeddings for {len(self._labels)} records: "
                "give one row for each record, and leave bad ones out by `where`."
            )
        chosen = slice(None) if where is None else np.asarray(where, bool)
        embeddings, attributes = embeddings[chosen], self._attributes[chosen]
        classes = self._labels[chosen, -1]
        num_relevant = _class_sizes(classes) - 1
        recalled, precision, dcg = self._measure(
            embeddings, classes, attributes, num_relevant
        )
        counted = num_relevant > 0
        for k, values in zip(self._ks, recalled, strict=True):
            yield f"recall@{k}", _mean(values, counted)
        yield "map@r", _mean(precision, counted)
        ideal = self._ideal_dcg(attributes)
        for k, values, best in zip(self._ks, dcg, ideal, strict=True):
            share = values / np.where(best > 0, best, 1.0)
            yield f"ndcg@{k}", _mean(share, best > 0)
        yield "num_queries", float(counted.sum())

    def _measure(
        self,
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
        blocks = neighbor_blocks(embeddings, embeddings, depth, exclude_self=True)
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


def _mean(values: np.ndarray, where: np.ndarray) -> float:
    """Returns the mean of the values that count, 0 if none does."""
    return float(np.mean(values, where=where)) if where.any() else 0.0
