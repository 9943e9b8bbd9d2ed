"""Retrieval metrics by relevance in place of classes, e.g. by the place of tiles.

Leave-one-out, as in `retrieval`: equal distances rank in record order.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from deeprank_jax.data.records import Records
from deeprank_jax.evaluation.scores import (
    NothingToMeasureError,
    QueryEvaluator,
    QueryScores,
    check_gains,
    check_rows,
    mean_over,
    sum_over,
)
from deeprank_jax.relevance import Relevance
from deeprank_jax.search.neighbors import neighbor_blocks

# Pairs whose relevance is in memory at a time.
_BLOCK_PAIRS = 2**22


class RelevantRetrieval(QueryEvaluator):
    """Recall@k and precision@k, where a record is relevant by its relevance."""

    METRICS: ClassVar[Mapping[str, str]] = {
        "recall@{ks}": "Share of queries with a relevant image at rank {ks} or better.",
        "precision@{ks}": "Mean share of the {ks} nearest images that are relevant.",
        "chance": "Mean share of all other images that are relevant, the recall@1 of a "
        "random order.",
        "num_queries": "Number of queries with a relevant image.",
    }

    def __init__(
        self,
        split: str,
        records: Records,
        sampling_relevance: Relevance,
        *,
        ks: Sequence[int] = (1, 5, 10),
        min_relevance: float = 1.0,
    ):
        """Creates the evaluator, and counts the relevant images of each query.

        Args:
          split: Name of the split.
          records: Records of the split, with the attributes of the relevance.
          sampling_relevance: Relevance of two records, `config.relevance`.
          ks: Cut-offs, whole numbers of at least 1; one larger than the number of other
            records takes them all.
          min_relevance: Least relevance to the query of an image that is relevant,
            above 0.

        Raises:
          NothingToMeasureError: No record is relevant to another.
          ValueError: An option is out of its range.
        """
        if not ks or min(ks) < 1 or any(k != int(k) for k in ks):
            raise ValueError(
                f"ks must be cut-offs, whole numbers of at least 1, got {tuple(ks)}."
            )
        if not min_relevance > 0:
            raise ValueError(f"min_relevance must be above 0, got {min_relevance}.")
        self._attributes = np.asarray(records.attributes)
        self._relevance = sampling_relevance
        self._ks = tuple(sorted({int(k) for k in ks}))
        self._min_relevance = min_relevance
        if not self._num_relevant(np.arange(len(records))).any():
            raise NothingToMeasureError(
                f"No two images of {split} have a relevance of "
                f"min_relevance={min_relevance:g}; lower "
                "config.evaluation.evaluators.relevant_retrieval.min_relevance."
            )

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
        """Measures every query that has a relevant record.

        Args:
          embeddings: `[N, D]` float, one row per record.
          where: Optional `[N]` bool, the records that are queries and gallery.
          queries: Optional `[N, D]` float, the records as queries; None for
            `embeddings`.

        Returns:
          For each metric the scores of the `N` records as queries.

        Raises:
          ValueError: There is not one row per record, or one is not finite.
        """
        rows = check_rows(len(self._attributes), embeddings, where, queries)
        embeddings, where, queries = rows
        indices = np.flatnonzero(where)
        num_others = max(len(indices) - 1, 0)
        num_relevant = self._num_relevant(indices)
        hits = np.zeros((len(indices), min(self._ks[-1], num_others)), bool)
        blocks = (
            neighbor_blocks(
                queries[where], embeddings[where], hits.shape[1], exclude_self=True
            )
            if num_others
            else ()
        )
        for part, _, neighbors in blocks:
            hits[part] = self._are_relevant(indices[part][:, None], indices[neighbors])
        columns = {
            f"recall@{k}": np.any(hits[:, :k], axis=1).astype(np.float64)
            for k in self._ks
        }
        for k in self._ks:
            if k > 1:
                share = hits[:, :k].sum(axis=1) / max(min(k, num_others), 1)
                columns[f"precision@{k}"] = share
        columns["chance"] = num_relevant / max(num_others, 1)
        counts = np.zeros(len(where), bool)
        counts[indices] = num_relevant > 0
        scores = {}
        for name, column in columns.items():
            values = np.zeros(len(where))
            values[indices] = column
            scores[name] = mean_over(values, counts)
        return scores | {"num_queries": sum_over(counts, counts)}

    def _num_relevant(self, indices: np.ndarray) -> np.ndarray:
        """Returns the number of other records of `indices` relevant to each, `[M]`."""
        counts = np.zeros(len(indices), np.int64)
        step = max(1, _BLOCK_PAIRS // max(len(indices), 1))
        for first in range(0, len(indices), step):
            block = slice(first, first + step)
            is_relevant = self._are_relevant(indices[block, None], indices[None])
            is_relevant &= indices[block, None] != indices[None]
            counts[block] = is_relevant.sum(axis=1)
        return counts

    def _are_relevant(self, queries: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Returns whether records are relevant to queries, for index arrays."""
        attributes = self._attributes
        gains = self._relevance.pairwise(attributes[queries], attributes[others])
        gains = np.asarray(gains, np.float64)
        check_gains(gains, "relevant_retrieval")
        return gains >= self._min_relevance
