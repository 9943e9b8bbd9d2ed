"""Retrieval metrics of a split that is searched with its own records.

Leave-one-out: each record is searched for among all others. Distances are squared
Euclidean and equal distances rank in record order, for every metric. Memory grows with
the number of records, but not with that times the size of a class.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np

from deeprank_jax.evaluation.average_precision import average_precision
from deeprank_jax.evaluation.rankings import Ranking, class_sizes, first_ranks
from deeprank_jax.evaluation.scores import (
    QueryEvaluator,
    QueryScores,
    check_gains,
    check_rows,
    mean_over,
    sum_over,
)
from deeprank_jax.relevance import Relevance
from deeprank_jax.search.neighbors import neighbor_blocks

# Records whose relevance to the whole gallery is held at a time, and the largest number
# of these values: 32 MiB as float64.
_BLOCK, _BLOCK_VALUES = 256, 2**22


class Retrieval(QueryEvaluator):
    """Recall@k, precision@k, MAP@R, R-precision, MRR and graded nDCG@k on one split.

    References:
      Musgrave et al., A Metric Learning Reality Check, 2020,
      https://arxiv.org/abs/2003.08505 (MAP@R and R-precision).
    """

    METRICS: ClassVar[Mapping[str, str]] = {
        "recall@{ks}": "Share of queries with an image of their class at rank {ks} or "
        "better.",
        "precision@{ks}": "Mean share of the {ks} nearest images that are of the "
        "query's class.",
        "map@r": "Mean average precision at R, the number of other images of the "
        "query's class.",
        "r_precision": "Mean share of the R nearest images that are of the query's "
        "class.",
        "mrr": "Mean of 1 / rank of the first image of the query's class, in the whole "
        "gallery.",
        "ndcg@{ks}": "Graded relevance up to rank {ks}, discounted by rank; 1 is the "
        "best possible ranking.",
        "num_queries": "Number of queries whose class has another image.",
    }

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
          labels: `[N, L]` int, labels from coarse to fine; two records are of one class
            if their last label is the same.
          relevance: Gains of nDCG, e.g. `Hierarchy(gains)`. Gains are linear: a gain
            of 1 is worth ten gains of 0.1 at the same rank.
          attributes: `[N, A]`, the values compared by the relevance; None for the
            labels.
          ks: Cut-offs of recall, precision and nDCG, whole numbers of at least 1. A
            cut-off larger than the number of other records takes them all.

        Raises:
          ValueError: There is no cut-off, one is less than 1 or no whole number, or
            the numbers of attributes and labels differ.
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

    @classmethod
    def describe_metrics(cls, **options: object) -> dict[str, str]:
        """Returns name and meaning of each metric, with the options filled in."""
        described = super().describe_metrics(**options)
        # The same as recall@1.
        described.pop("precision@1", None)
        return described

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

        * `recall@k`: 1 if one of the class is among the k nearest. Also known as CMC@k
          and as the hit rate; precision@1 is the same as recall@1.
        * `precision@k`, for k above 1: share of the k nearest that is of the class; of
          all others, if there are fewer than k.
        * `map@r`: `average_precision` at R, the number of other records of the class.
        * `r_precision`: precision@R.
        * `mrr`: 1 / rank of the first one of the class, in the whole gallery.

        `ndcg@k` divides the gains of the k nearest, discounted by `1 / log2(1 + rank)`,
        by those of the best ranking of the whole gallery, and is a mean over the
        queries with a gain above 0 anywhere.

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
        """
        return self.rank(embeddings, where, queries=queries, num_neighbors=0)[0]

    def rank(
        self,
        embeddings: np.ndarray,
        where: np.ndarray | None = None,
        *,
        queries: np.ndarray | None = None,
        num_neighbors: int = 8,
    ) -> tuple[dict[str, QueryScores], Ranking]:
        """Measures every metric, and keeps the nearest neighbours of each query.

        Args:
          embeddings: `[N, D]` float, embeddings as in `measure`.
          where: Optional `[N]` bool, see `measure`.
          queries: Optional `[N, D]` float, see `measure`.
          num_neighbors: Number of neighbours to keep; fewer if there are fewer records.

        Returns:
          The scores, see `measure`, and the ranking.

        Raises:
          ValueError: See `measure`.
        """
        embeddings, where, queries = check_rows(
            len(self._labels), embeddings, where, queries
        )
        indices, attributes = np.flatnonzero(where), self._attributes[where]
        classes = self._labels[where, -1]
        num_relevant = class_sizes(classes) - 1
        num_neighbors = min(num_neighbors, max(len(indices) - 1, 0))
        ranking = Ranking(
            queries=indices,
            neighbors=np.zeros((len(indices), num_neighbors), int),
            distances=np.zeros((len(indices), num_neighbors), np.float32),
            average_precision=np.full(len(indices), np.nan),
        )
        columns = self._measure(
            queries[where], embeddings[where], classes, attributes, ranking
        )
        has_relevant = num_relevant > 0
        ranking.average_precision[has_relevant] = columns["map@r"][has_relevant]
        counts = dict.fromkeys(columns, has_relevant)
        for k, best in zip(self._ks, self._ideal_dcg(attributes), strict=True):
            columns[f"ndcg@{k}"] /= np.where(best > 0, best, 1.0)
            counts[f"ndcg@{k}"] = best > 0

        def spread(column: np.ndarray) -> np.ndarray:
            whole = np.zeros(len(where), column.dtype)
            whole[where] = column
            return whole

        scores = {
            name: mean_over(spread(values), spread(counts[name]))
            for name, values in columns.items()
        }
        has_relevant = spread(has_relevant)
        return scores | {"num_queries": sum_over(has_relevant, has_relevant)}, ranking

    def _measure(
        self,
        queries: np.ndarray,
        embeddings: np.ndarray,
        classes: np.ndarray,
        attributes: np.ndarray,
        ranking: Ranking,
    ) -> dict[str, np.ndarray]:
        """Measures every query, a block of them at a time, and fills in the ranking.

        Returns:
          For each metric `[N]`; for nDCG the discounted gain, not yet divided by the
          best possible one.
        """
        size, num_neighbors = len(classes), ranking.neighbors.shape[1]
        num_relevant = class_sizes(classes) - 1
        columns = {name: np.zeros(size) for name in self._means()}
        max_k = min(self._ks[-1], max(size - 1, 0))
        depth = max(max_k, num_relevant.max(initial=0))
        if not depth:  # A single record has nobody to be compared with.
            return columns
        search_depth = max(depth, num_neighbors)
        blocks = neighbor_blocks(queries, embeddings, search_depth, exclude_self=True)
        for rows, distances, neighbors in blocks:
            ranking.neighbors[rows] = ranking.queries[neighbors[:, :num_neighbors]]
            ranking.distances[rows] = distances[:, :num_neighbors]
            hits = classes[neighbors[:, :depth]] == classes[rows, None]
            gains = self._relevance.pairwise(
                attributes[rows, None], attributes[neighbors[:, :max_k]]
            )
            block = self._of_block(hits, num_relevant[rows], gains)
            for name, column in zip(columns, block, strict=True):
                columns[name][rows] = column
        # The few whose first relevant record ranks below `depth`.
        late = np.flatnonzero((num_relevant > 0) & (columns["mrr"] == 0))
        columns["mrr"][late] = 1.0 / first_ranks(queries, embeddings, classes, late)
        return columns

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
        """Returns `[K, N]`, for each cut-off the largest possible discounted gain."""
        # Records with equal attributes gain equally, and are gained equally.
        kinds, inverse, counts = np.unique(
            attributes, axis=0, return_inverse=True, return_counts=True
        )
        max_k = min(self._ks[-1], max(len(attributes) - 1, 0))
        ideal = np.zeros((len(self._ks), len(kinds)))
        step = max(1, min(_BLOCK, _BLOCK_VALUES // max(len(kinds), 1)))
        for start in range(0, len(kinds) if max_k else 0, step):
            block = np.arange(start, min(start + step, len(kinds)))
            gains = np.asarray(
                self._relevance.pairwise(kinds[block, None], kinds[None]), np.float64
            )
            check_gains(gains, "nDCG")
            largest = _largest(
                gains, counts[None] - (block[:, None] == np.arange(len(kinds))), max_k
            )
            for i, k in enumerate(self._ks):
                ideal[i, block] = _dcg(largest[:, :k])
        return ideal[:, inverse]


def _largest(gains: np.ndarray, counts: np.ndarray, k: int) -> np.ndarray:
    """Returns the `k` largest gains of each row, `[B, k]`, in descending order.

    Args:
      gains: `[B, U]` floats.
      counts: `[B, U]` int, multiplicity of each gain: at least 1, but for one gain of
        a row, which may be missing (0); `k` or more in all.
      k: Number of gains, at least 1.
    """
    # One more than k, in place of the one that may be missing.
    num = min(k + 1, gains.shape[1])
    columns = np.argpartition(-gains, num - 1, axis=1)[:, :num]
    largest = np.take_along_axis(gains, columns, axis=1)
    order = np.argsort(-largest, axis=1)
    largest = np.take_along_axis(largest, order, axis=1)
    columns = np.take_along_axis(columns, order, axis=1)
    ends = np.cumsum(np.take_along_axis(counts, columns, axis=1), axis=1)
    places = np.sum(ends[:, None] <= np.arange(k)[:, None], axis=2)
    return np.take_along_axis(largest, places, axis=1)


def _dcg(gains: np.ndarray) -> np.ndarray:
    """Returns `[Q]`, the discounted sum of the gains `[Q, K]` of a ranking."""
    return (gains / np.log2(2.0 + np.arange(gains.shape[1]))).sum(axis=1)
