"""Retrieval by the first numbers of each embedding, as if it were shortened."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from deeprank_jax.evaluation.retrieval import Retrieval
from deeprank_jax.evaluation.scores import QueryEvaluator, QueryScores, check_rows
from deeprank_jax.relevance import Relevance


class Prefixes(QueryEvaluator):
    """Recall@1 and MAP@R of prefixes of the embeddings, scaled to length 1.

    The loss `matryoshka` trains such prefixes; `deeprank export --embed_prefix`
    keeps one.

    References:
      Kusupati et al., Matryoshka Representation Learning, 2022,
      https://arxiv.org/abs/2205.13147.
    """

    METRICS: ClassVar[Mapping[str, str]] = {
        "recall@1_{dims}": "Share of queries whose nearest image by the first {dims} "
        "numbers of the embeddings, of which there may be fewer, is of their class.",
        "map@r_{dims}": "MAP@R by the first {dims} numbers of the embeddings, of which "
        "there may be fewer.",
    }

    def __init__(
        self,
        labels: np.ndarray,
        relevance: Relevance,
        *,
        dims: Sequence[int] = (16, 32, 64),
    ):
        """Creates the evaluator.

        Args:
          labels: `[N, L]` int, labels from coarse to fine; two records are of one class
            if their last label is the same.
          relevance: Relevance of the split.
          dims: Lengths of the prefixes, whole numbers of at least 1; one above that of
            the embeddings takes them whole.

        Raises:
          ValueError: There is no length, or one is less than 1 or no whole number.
        """
        if not dims or min(dims) < 1 or any(dim != int(dim) for dim in dims):
            raise ValueError(
                f"dims must be whole numbers of at least 1, got {tuple(dims)}."
            )
        self._retrieval = Retrieval(labels, relevance, ks=(1,))
        self._num_records = len(labels)
        self._dims = tuple(sorted({int(dim) for dim in dims}))

    def measure(
        self,
        embeddings: np.ndarray,
        where: np.ndarray | None = None,
        *,
        queries: np.ndarray | None = None,
    ) -> dict[str, QueryScores]:
        """Measures every query, as `Retrieval.measure` does, for each length.

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
        rows = check_rows(self._num_records, embeddings, where, queries)
        embeddings, where, queries = rows
        is_symmetric = queries is embeddings
        scores = {}
        for dim in self._dims:
            of_prefix = self._retrieval.measure(
                shorten(embeddings, dim),
                where,
                queries=None if is_symmetric else shorten(queries, dim),
            )
            scores |= {f"{x}_{dim}": of_prefix[x] for x in ("recall@1", "map@r")}
        return scores


def shorten(embeddings: np.ndarray, dim: int) -> np.ndarray:
    """Returns the first numbers of each row, scaled to length 1 unless all are 0.

    Args:
      embeddings: `[N, D]` float.
      dim: Number of numbers, of which at most `D` exist.
    """
    prefixes = np.asarray(embeddings[:, :dim], np.float32)
    lengths = np.linalg.norm(prefixes, axis=1, keepdims=True)
    return prefixes / np.where(lengths > 0, lengths, 1)
