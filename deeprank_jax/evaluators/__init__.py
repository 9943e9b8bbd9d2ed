"""Evaluators: made once for a split, `run(embeddings)` yields `(name, value)`.

An evaluator never sees a model: whatever can embed a split is measured by the same
code. Records whose image was bad are left out by `where`, the `ok` of `embed_split`.
"""

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from deeprank_jax.evaluators.embedding import embed_split
from deeprank_jax.evaluators.retrieval import Retrieval
from deeprank_jax.evaluators.triplets import Triplets, load_triplets, save_triplets

__all__ = [
    "Evaluator",
    "Retrieval",
    "Triplets",
    "embed_split",
    "load_triplets",
    "save_triplets",
]


class Evaluator(Protocol):
    """What every evaluator does."""

    def run(
        self, embeddings: np.ndarray, where: np.ndarray | None = None
    ) -> Iterator[tuple[str, float]]:
        """Yields metric names and values for embeddings `[N, D]`.

        Args:
          embeddings: `[N, D]` float, a row for each record of the split.
          where: optional `[N]` bool, the records that take part; None takes all.
        """
        ...
