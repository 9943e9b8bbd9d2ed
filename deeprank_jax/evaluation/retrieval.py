"""Does searching a split with its own records bring up the right ones first?

Leave-one-out: each record is searched for among all others. Distances are squared
Euclidean and equal distances rank in record order, for every metric. Memory grows with
the number of records, but not with that times the size of a class.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from deeprank_jax.evaluation.average_precision import average_precision
from deeprank_jax.evaluation.rankings import first_ranks
from deeprank_jax.evaluation.scores import (
    Evaluator,
    QueryScores,
    check_gains,
    check_rows,
    mean_over,
    sum_over,
)
from deeprank_jax.relevance import Relevance
from deeprank_jax.search.neighbors import neighbor_blocks

# Records whose relevance to the whole gallery is held at a time, and how many values
# that may be: 32 MiB as float64.
_BLOCK, _BLOCK_VALUES = 256, 2**22


class Retrieval(Evaluator):
    """Recall@k, precision@k, MAP@R, R-precision, MRR and graded nDCG@k on one split.

    References:
      Musgrave et al., A Metric Learning Reality Check, 2020,
      https://arxiv.org/abs/2003.08505 (MAP@R and R-precision).
    """

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
          ks: the cut-offs, whole numbers of at least 1. A cut-off larger than the
            number of other records takes them all.

        Raises:
          ValueError: there is no cut-off, one is less than 1 or no whole number, or
            there are not as many attributes as labels.
        """
        if not ks or min(ks) < 1 or any(k != int(k) for k in ks):
            raise ValueError(
                f"ks must be cut-offs, whole numbers of at least 1, got {tuple(ks)}."
            )
        self._labels = np.asarray(labels)
        self._attributes = np.asarray(labels if attributes is None else attributes)
        if len(self._attributes) != len(self._labels):
            raise ValueError(
                f"{len(self._attributes)} rows of attributes for {len(self._labels)} "
                "of labels: give one for each record."
            )
        self._relevance = relevance
        self._ks = tuple(sorted({int(k) for k in ks}))

    def measure(
        self,
        embeddings: np.ndarray,
        where: np.ndarray | None = None,
        *,
        queries: np.ndarray | None = None,
    ) -> dict[str, QueryScores]:
        """Measures every metric, query by query.

        These are means over the queries whose class has another record, which
        `num_queries` counts:

        * `recall@k`: is one of the class among the k nearest? Also known as CMC@k, and
          as the hit rate; precision@1 is the same as recall@1.
        * `precision@k`, for k above 1: which share of the k nearest is of the class.
          Of fewer other records than k, of all.
        * `map@r`: `average_precision` at R, R being the other records of the class.
        * `r_precision`: precision@R.
        * `mrr`: 1 by the rank of the first one of the class, in the whole gallery.

        `ndcg@k` compares the gains of the k nearest, discounted by `1 / log2(1 +
        rank)`, with those of the best ranking of the whole gallery, and is a mean over
        the queries for which any record gains.

        Args:
          embeddings: `[N, D]` float, a row for each record.
          where: optional `[N]` bool; the others are neither query nor gallery.
          queries: optional `[N, D]` float, what a query is; None for `embeddings`.

        Returns:
          For each metric the scores of the `N` records as queries.

        Raises:
          ValueError: there is not one row for each record, one is not finite, or a
            relevance is negative or not finite.
        """
        embeddings, where, queries = check_rows(
            len(self._labels), embeddings, where, queries
        )
        attributes, classes = self._attributes[where], self._labels[where, -1]
        num_relevant = _class_sizes(classes) - 1
        found = self._measure(
            queries[where], embeddings[where], classes, attributes, num_relevant
        )
        counted = dict.fromkeys(found, num_relevant > 0)
        for k, best in zip(self._ks, self._ideal_dcg(attributes), strict=True):
            found[f"ndcg@{k}"] /= np.where(best > 0, best, 1.0)
            counted[f"ndcg@{k}"] = best > 0

        def spread(column: np.ndarray) -> np.ndarray:
            whole = np.zeros(len(where), column.dtype)
            whole[where] = column
            return whole

        scores = {
            name: mean_over(spread(values), spread(counted[name]))
            for name, values in found.items()
        }
        has_relevant = spread(num_relevant > 0)
        return scores | {"num_queries": sum_over(has_relevant, has_relevant)}

    def _measure(
        self,
        queries: np.ndarray,
        embeddings: np.ndarray,
        classes: np.ndarray,
        attributes: np.ndarray,
        num_relevant: np.ndarray,
    ) -> dict[str, np.ndarray]:
        """Measures every query, a block of them at a time.

        Returns:
          For each metric `[N]`, of nDCG the discounted gain that is not yet compared
          with the best.
        """
        size = len(classes)
        found = {name: np.zeros(size) for name in self._means()}
        max_k = min(self._ks[-1], max(size - 1, 0))
        depth = max(max_k, num_relevant.max(initial=0))
        if not depth:  # A single record has nobody to be compared with.
            return found
        blocks = neighbor_blocks(queries, embeddings, depth, exclude_self=True)
        for rows, _, neighbors in blocks:
            hits = classes[neighbors] == classes[rows, None]
            gains = self._relevance.pairwise(
                attributes[rows, None], attributes[neighbors[:, :max_k]]
            )
            columns = self._of_block(hits, num_relevant[rows], gains)
            for name, column in zip(found, columns, strict=True):
                found[name][rows] = column
        # The few whose first comes later than the nearest that were looked at.
        late = np.flatnonzero((num_relevant > 0) & (found["mrr"] == 0))
        found["mrr"][late] = 1.0 / first_ranks(queries, embeddings, classes, late)
        return found

    def _means(self) -> list[str]:
        """Returns the names of all means, in the order of `_of_block`."""
        return [
            *(f"recall@{k}" for k in self._ks),
            *(f"precision@{k}" for k in self._ks if k > 1),
            *("map@r", "r_precision", "mrr"),
            *(f"ndcg@{k}" for k in self._ks),
        ]

    def _of_block(
        self, hits: np.ndarray, num_relevant: np.ndarray, gains: np.ndarray
    ) -> Iterator[np.ndarray]:
        """Yields `[B]` for each of `_means`; 0 for an MRR that is not known yet."""
        yield from (np.any(hits[:, :k], axis=1) for k in self._ks)
        yield from (np.mean(hits[:, :k], axis=1) for k in self._ks if k > 1)
        yield average_precision(hits, num_relevant)
        within = np.arange(hits.shape[1]) < num_relevant[:, None]
        yield (hits & within).sum(axis=1) / np.maximum(num_relevant, 1)
        yield hits.any(axis=1) / (1.0 + hits.argmax(axis=1))
        yield from (_dcg(gains[:, :k]) for k in self._ks)

    def _ideal_dcg(self, attributes: np.ndarray) -> np.ndarray:
        """Returns `[K, N]`, for each cut-off what the best ranking would gain."""
        # Records with equal attributes gain equally, and are gained equally.
        kinds, inverse, counts = np.unique(
            attributes, axis=0, return_inverse=True, return_counts=True
        )
        max_k = min(self._ks[-1], max(len(attributes) - 1, 0))
        ideal = np.zeros((len(self._ks), len(kinds)))
        step = max(1, min(_BLOCK, _BLOCK_VALUES // max(len(kinds), 1)))
        for start in range(0, len(kinds) if max_k else 0, step):
            own = np.arange(start, min(start + step, len(kinds)))
            gains = np.asarray(
                self._relevance.pairwise(kinds[own, None], kinds[None]), np.float64
            )
            check_gains(gains, "nDCG")
            largest = _largest(
                gains, counts[None] - (own[:, None] == np.arange(len(kinds))), max_k
            )
            for i, k in enumerate(self._ks):
                ideal[i, own] = _dcg(largest[:, :k])
        return ideal[:, inverse]


def _largest(gains: np.ndarray, counts: np.ndarray, k: int) -> np.ndarray:
    """Returns the `k` largest gains of each row, `[B, k]`, in descending order.

    Args:
      gains: `[B, U]`.
      counts: `[B, U]`, how often each is there: but for one of a row, which may be
        there no more, at least once; `k` or more in all.
      k: at least 1.
    """
    # One more, in place of the one that may be there no more.
    num = min(k + 1, gains.shape[1])
    chosen = np.argpartition(-gains, num - 1, axis=1)[:, :num]
    chosen_gains = np.take_along_axis(gains, chosen, axis=1)
    order = np.argsort(-chosen_gains, axis=1)
    chosen_gains = np.take_along_axis(chosen_gains, order, axis=1)
    chosen = np.take_along_axis(chosen, order, axis=1)
    ends = np.cumsum(np.take_along_axis(counts, chosen, axis=1), axis=1)
    places = np.sum(ends[:, None] <= np.arange(k)[:, None], axis=2)
    return np.take_along_axis(chosen_gains, places, axis=1)


def _class_sizes(labels: np.ndarray) -> np.ndarray:
    """Returns `[N]`, how many records share each record's label."""
    _, label, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return counts[label]


def _dcg(gains: np.ndarray) -> np.ndarray:
    """Returns `[Q]`, the discounted sum of the gains `[Q, K]` of a ranking."""
    return (gains / np.log2(2.0 + np.arange(gains.shape[1]))).sum(axis=1)
