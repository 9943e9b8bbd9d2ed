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
from deeprank_jax.search.codes import encode_signs, hamming_blocks, reorder_by_numbers

# Nearest codes that are put in order by the query's numbers, at least.
_REORDERED = 100


class Codes(QueryEvaluator):
    """Recall@1 and MAP@R by Hamming distance, beside those by the embeddings.

    A bit is 1 where a number of the embedding is above 0. Each record is searched for
    among all others, and equal distances rank in record order. Then the nearest 100, or
    as many as its class has, are put in order by the numbers of the query and the codes
    of the others (`reorder_by_numbers`). The losses `ortho_hash` and `hashing` train
    such codes.
    """

    METRICS: ClassVar[Mapping[str, str]] = {
        "recall@1": "Share of queries whose nearest image by Hamming distance of the "
        "codes is of their class.",
        "map@r": "MAP@R by Hamming distance of the codes.",
        "recall@1_asymmetric": "The same as recall@1, with the nearest 100 codes in "
        "the order of the query's numbers.",
        "map@r_asymmetric": "The same as map@r, with the nearest 100 codes in the "
        "order of the query's numbers.",
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
        columns = self._measure(queries[indices], embeddings[indices], indices)
        counts = np.zeros(len(where), bool)
        counts[indices] = num_relevant > 0
        scores = {}
        for name, column in columns.items():
            whole = np.zeros(len(where))
            whole[indices] = column
            scores[name] = mean_over(whole, counts)
        return scores | {f"{x}_numbers": by_numbers[x] for x in ("recall@1", "map@r")}

    def _measure(
        self, queries: np.ndarray, rows: np.ndarray, indices: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Returns recalls and average precisions of embeddings `[M, D]`, each `[M]`."""
        classes = self._classes[indices]
        num_relevant = class_sizes(classes) - 1
        columns = {
            f"{name}{order}": np.zeros(len(indices))
            for order in ("", "_asymmetric")
            for name in ("recall@1", "map@r")
        }
        most = int(num_relevant.max(initial=0))
        if not most:
            return columns
        depth = min(max(_REORDERED, most), len(indices) - 1)
        gallery = encode_signs(rows)
        for block, _, nearest in hamming_blocks(
            encode_signs(queries), gallery, depth, exclude_self=True
        ):
            reordered = reorder_by_numbers(queries[block], gallery, nearest)
            for order, found in (("", nearest), ("_asymmetric", reordered)):
                hits = classes[found[:, :most]] == classes[block, None]
                columns[f"recall@1{order}"][block] = hits[:, 0]
                precision = average_precision(hits, num_relevant[block])
                columns[f"map@r{order}"][block] = precision
        return columns
