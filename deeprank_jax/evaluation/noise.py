"""Robustness of embeddings to noise: retrieval with noisy queries."""

from collections.abc import Mapping, Sequence
import functools
from typing import ClassVar

import numpy as np

from deeprank_jax.data import pixel_noise
from deeprank_jax.evaluation.retrieval import Retrieval
from deeprank_jax.evaluation.scores import (
    Change,
    ChangedQueryEvaluator,
    QueryScores,
    check_rows,
    mean_over,
)
from deeprank_jax.relevance import Relevance


class Noise(ChangedQueryEvaluator):
    """Recall@1 of queries with Gaussian noise, in a gallery without it.

    The noise of a record is the same for every network; see `pixel_noise.add_noise`. A
    query is searched for among all other records, so that its own image without noise
    is not in its gallery.
    """

    METRICS: ClassVar[Mapping[str, str]] = {
        "recall@1_{sigmas}": "Share of queries with Gaussian noise of {sigmas} of the "
        "pixel range whose nearest image, without noise, is of their class.",
        "cosine_{sigmas}": "Mean cosine similarity of an image with Gaussian noise of "
        "{sigmas} of the pixel range and the same without.",
    }

    def __init__(
        self,
        labels: np.ndarray,
        relevance: Relevance,
        *,
        sigmas: Sequence[float] = (0.1, 0.2),
    ):
        """Creates the evaluator.

        Args:
          labels: `[N, L]` int, labels from coarse to fine; two records are of one class
            if their last label is the same.
          relevance: Relevance of the split.
          sigmas: Standard deviations of the noise, as shares of the pixel range.

        Raises:
          ValueError: There is no standard deviation, or one is not from 0 to 1.
        """
        if not isinstance(sigmas, Sequence) or not sigmas:
            raise ValueError("sigmas must hold at least one number, as (0.1, 0.2).")
        for sigma in sigmas:
            pixel_noise.check_sigma("sigmas", sigma)
        self._retrieval = Retrieval(labels, relevance, ks=(1,))
        self._num_records = len(labels)
        self._sigmas = tuple(dict.fromkeys(sigmas))

    def changes(self) -> dict[str, Change]:
        """Returns the noise of each strength."""
        return {
            f"noise {sigma}": functools.partial(_add_noise, sigma=sigma)
            for sigma in self._sigmas
        }

    def measure_changed(
        self,
        embeddings: np.ndarray,
        where: np.ndarray | None,
        changed: Mapping[str, tuple[np.ndarray, np.ndarray]],
    ) -> dict[str, QueryScores]:
        """Measures every query; see `ChangedQueryEvaluator`.

        A noisy image without a finite embedding is a miss of similarity 0.
        """
        scores = {}
        for sigma, (rows, ok) in zip(self._sigmas, changed.values(), strict=True):
            checked = check_rows(self._num_records, embeddings, where, rows)
            clean, counts, noisy = checked
            hits = self._retrieval.measure(clean, counts, queries=noisy)["recall@1"]
            values = np.where(ok, hits.values, 0.0)
            scores[f"recall@1_{sigma}"] = mean_over(values, hits.counts)
            cosines = np.where(ok, row_cosines(clean, noisy), 0.0)
            scores[f"cosine_{sigma}"] = mean_over(cosines, counts)
        return scores


def row_cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the cosine similarity of each two rows, 0 where a row is 0.

    Args:
      a: `[N, D]` float.
      b: `[N, D]` float.

    Returns:
      `[N]` float64.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.einsum("nd,nd->n", a, b) / np.where(lengths > 0, lengths, 1.0)


def _add_noise(images: np.ndarray, indices: np.ndarray, *, sigma: float) -> np.ndarray:
    """Returns noisy images; see `pixel_noise.add_noise`."""
    return pixel_noise.add_noise(images, sigma, indices)
