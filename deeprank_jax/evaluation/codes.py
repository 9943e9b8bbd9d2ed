"""Retrieval by binary codes, the signs of the embeddings' numbers."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from deeprank_jax.evaluation.average_precision import average_precision
from deeprank_jax.evaluation.rankings import class_sizes
from deeprank_jax.evaluation.retrieval import Retrieval
from deeprank_jax.evaluation.scores import (
    QueryEvaluator,
    QueryScores,
    check_rows,
    mean_over,
)
from deeprank_jax.relevance import Relevance
from deeprank_jax.search.codes import encode_signs, hamming_blocks


class Codes(QueryEvaluator):
    """Recall@1 and MAP@R by Hamming distance, beside those by the embeddings.

    A bit is 1 where a number of the embedding is above 0. Each record is searched for
    among all others, and equal distances rank in record order. The losses `ortho_hash`
    and `hashing` train such codes.
    """

    METRICS: ClassVar[Mapping[str, str]] = {
        "recall@1": "Share of queries whose nearest image by Hamming distance of the "
        "codes is of their class.",
        "map@r": "MAP@R by Hamming distance of the codes.",
        "recall@1_numbers": "Share of queries whose nearest image by the embeddings is "
        "of their class.",
        "map@r_numbers": "MAP@R by the embeddings.",
    }

    def __init__(self, labels: np.ndarray, relevance: Relevance):
        """Creates the evaluator.

        Args:
          labels: `[N, L]` int, labels from coarse to fine; two records are of one class
            if their last label is the same.
          relevance: Relevance of the split.
        """
        self._retrieval = Retrieval(labels, relevance, ks=(1,))
        self._classes = np.asarray(labels)[:, -1]

    def measure(
        self,
        embeddings: np.ndarray,
        where: np.ndarray | None = None,
        *,
        queries: np.ndarray | None = None,
    ) -> dict[str, QueryScores]:
        """Measures every query, as `Retrieval.measure` does.

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
        by_numbers = self._retrieval.measure(embeddings, where, queries=queries)
        embeddings, where, queries = check_rows(
            len(self._classes), embeddings, where, queries
        )
        indices = np.flatnonzero(where)
        num_relevant = class_sizes(self._classes[indices]) - 1
        hits, precision = self._measure(
            encode_signs(queries[indices]), encode_signs(embeddings[indices]), indices
        )
        counts = np.zeros(len(where), bool)
        counts[indices] = num_relevant > 0
        scores = {}
        for name, column in (("recall@1", hits), ("map@r", precision)):
            whole = np.zeros(len(where))
            whole[indices] = column
            scores[name] = mean_over(whole, counts)
        return scores | {f"{x}_numbers": by_numbers[x] for x in scores}

    def _measure(
        self, queries: np.ndarray, gallery: np.ndarray, indices: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns recall and average precision of codes `[M, W]`, each `[M]`."""
        classes = self._classes[indices]
        num_relevant = class_sizes(classes) - 1
        recall, precision = np.zeros(len(indices)), np.zeros(len(indices))
        depth = int(num_relevant.max(initial=0))
        if not depth:
            return recall, precision
        for rows, _, nearest in hamming_blocks(
            queries, gallery, depth, exclude_self=True
        ):
            hits = classes[nearest] == classes[rows, None]
            recall[rows] = hits[:, 0]
            precision[rows] = average_precision(hits, num_relevant[rows])
        return recall, precision
