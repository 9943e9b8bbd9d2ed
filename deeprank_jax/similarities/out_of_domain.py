"""Cosine, lowered for images that resemble images of another domain."""

from collections.abc import Iterator, Mapping
import dataclasses
from typing import ClassVar

import numpy as np

from deeprank_jax.errors import DataError
from deeprank_jax.similarities.base import (
    Metrics,
    check_embeddings,
    check_pairs,
    check_scores,
    unit_rows,
)

# Cosines in memory at a time, 64 MiB as float32.
_BLOCK = 2**24


@dataclasses.dataclass(kw_only=True, eq=False)
class OutOfDomain:
    r"""Cosine less the resemblance of both images to images of another domain.

    .. math::
      s(a, b) = \max(a^T b, 0) - v \, \bar c_k(a) - w \, \bar c_m(b)

    for unit vectors, where :math:`\bar c_k(x)` is the mean of the `k` highest cosines
    of x to distractors, images of other things than those that are searched for, e.g.
    photographs without a landmark. A hit that resembles many of them
    moves down, and the score of a query that does is low for all hits, so that one
    threshold tells which queries have an answer.

    References:
      Henkel and Singer, Supporting Large-scale Image Recognition with Out-of-domain
      Samples, 2020, https://arxiv.org/abs/2010.01650, with the weights 1. There all
    cosines are of one network for landmarks; the defaults here are the best of ten
    pairs on validation emoji.

    Attributes:
      num_query: Number `k` of distractors nearest to the query that count.
      num_indexed: Number `m` of those nearest to an image of the index.
      query_weight: Weight `v` of the query's resemblance, at least 0.
      indexed_weight: Weight `w` of that of an image of the index, at least 0.
    """

    is_distance: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False

    num_query: int = 10
    num_indexed: int = 5
    query_weight: float = 0.5
    indexed_weight: float = 0.25

    def __post_init__(self):
        """Checks the options.

        Raises:
          ValueError: One is out of range; the message begins with its name.
        """
        self._distractors: np.ndarray | None = None
        for name in ("num_query", "num_indexed"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be at least 1, got {getattr(self, name)}."
                )
        for name in ("query_weight", "indexed_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(
                    f"{name} must be at least 0 and finite, got {getattr(self, name)}."
                )

    def __call__(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Returns the score of each pair, `[N]` float64; see `Similarity`."""
        distractors = self._check_distractors()
        a, b = check_pairs(a, b, distractors.shape[1])
        a, b = unit_rows(a), unit_rows(b)
        cosines = np.maximum(np.sum(a * b, axis=1), 0.0)
        return check_scores(
            cosines
            - self.query_weight * self._resemblance(a, self.num_query)
            - self.indexed_weight * self._resemblance(b, self.num_indexed)
        )

    def stages(
        self, embeddings: np.ndarray, labels: np.ndarray, *, seed: int = 0
    ) -> Iterator[Metrics]:
        """Keeps the embeddings as the distractors, and yields no metrics.

        Args:
          embeddings: `[M, D]` finite floats, distractors.
          labels: Unused.
          seed: Unused.

        Raises:
          DataError: An embedding is not finite, or there are too few.
        """
        del labels, seed
        rows = unit_rows(check_embeddings("the distractors", embeddings))
        least = max(self.num_query, self.num_indexed)
        if len(rows) < least:
            raise DataError(
                f"{len(rows):,} distractors are fewer than the {least} of which the "
                "nearest count: give more images, or lower num_query and num_indexed."
            )
        self._distractors = rows.astype(np.float32)
        yield {}

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the distractors."""
        return {"distractors": self._check_distractors()}

    def restore(self, arrays: Mapping[str, np.ndarray], dim: int) -> None:
        """Sets the distractors; see `LearnedSimilarity`."""
        if arrays.keys() != {"distractors"}:
            raise ValueError(f"it holds {sorted(arrays)}, not distractors")
        rows = arrays["distractors"]
        least = max(self.num_query, self.num_indexed)
        if rows.ndim != 2 or rows.shape[1] != dim or len(rows) < least:
            raise ValueError(f"distractors is {list(rows.shape)}, not [M, {dim}]")
        if rows.dtype != np.float32 or not np.isfinite(rows).all():
            raise ValueError("distractors are not finite float32 numbers")
        self._distractors = rows

    def describe(self) -> str:
        """Returns the name and the number of distractors."""
        num = 0 if self._distractors is None else len(self._distractors)
        return f"cosine less the resemblance to {num:,} distractors"

    def _resemblance(self, rows: np.ndarray, num: int) -> np.ndarray:
        """Returns the mean of the `num` highest cosines to the distractors, `[N]`.

        Args:
          rows: `[N, D]` unit vectors; equal ones, as of one query, are compared once.
          num: Number of distractors that count.
        """
        distractors = self._check_distractors()
        unique_rows, inverse = np.unique(
            rows.astype(np.float32), axis=0, return_inverse=True
        )
        means = np.empty(len(unique_rows))
        size = max(1, _BLOCK // len(distractors))
        for start in range(0, len(unique_rows), size):
            cosines = unique_rows[start : start + size] @ distractors.T
            highest = np.partition(cosines, -num, axis=1)[:, -num:]
            means[start : start + size] = highest.mean(axis=1, dtype=np.float64)
        return means[inverse.reshape(-1)]

    def _check_distractors(self) -> np.ndarray:
        """Returns the distractors `[M, D]` float32.

        Raises:
          DataError: There are none yet.
        """
        if self._distractors is None:
            raise DataError(
                "out_of_domain has no distractors: train it on their embeddings, or "
                "load it from a file."
            )
        return self._distractors
