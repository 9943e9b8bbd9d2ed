"""The interface of a similarity, and checks of the embeddings it compares."""

from collections.abc import Iterator, Mapping
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np

from deeprank_jax.errors import DataError

Metrics = dict[str, float]


class Similarity(Protocol):
    """Comparison of two embeddings, by name.

    The keyword parameters of its constructor are its options.

    Attributes:
      is_distance: True for a distance, where small is near; False where a larger
        score is more similar.
    """

    is_distance: ClassVar[bool]

    def __call__(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Returns the score of each pair, `[N]` float64.

        Args:
          a: `[N, D]` finite floats, the first embedding of each pair, e.g. a query.
          b: `[N, D]` finite floats, the second.

        Raises:
          DataError: The shapes differ, or an embedding or a score is not finite.
        """
        ...

    def describe(self) -> str:
        """Returns a short text for tables, e.g. `"SimNet of width 4096"`."""
        ...


@runtime_checkable
class LearnedSimilarity(Similarity, Protocol):
    """A similarity that is trained on embeddings.

    Attributes:
      needs_labels: True if it learns from pairs of images with labels.
    """

    needs_labels: ClassVar[bool]

    def stages(
        self, embeddings: np.ndarray, labels: np.ndarray, *, seed: int = 0
    ) -> Iterator[Metrics]:
        """Trains, and yields the metrics of each stage of training at its end.

        Args:
          embeddings: `[N, D]` finite floats.
          labels: `[N]` ints or texts, the class of each; -1 or `""` for none.
          seed: Seed of the parameters and of the pairs.

        Raises:
          DataError: An embedding is not finite, or there are no pairs of both kinds.
        """
        ...

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the trained parameters by name."""
        ...

    def restore(self, arrays: Mapping[str, np.ndarray], dim: int) -> None:
        """Sets the trained parameters.

        Args:
          arrays: Parameters as `arrays` returns them.
          dim: Number of dimensions D of an embedding.

        Raises:
          ValueError: They are those of another kind, width or D.
        """
        ...


def train(
    similarity: LearnedSimilarity,
    embeddings: np.ndarray,
    labels: np.ndarray,
    *,
    seed: int = 0,
) -> Metrics:
    """Trains a similarity to its end, and returns the metrics of all stages.

    Args:
      similarity: Similarity that is trained in place.
      embeddings: `[N, D]` finite floats.
      labels: `[N]` ints or texts, see `LearnedSimilarity.stages`.
      seed: Seed of the parameters and of the pairs.

    Raises:
      DataError: See `LearnedSimilarity.stages`.
    """
    metrics: Metrics = {}
    for stage in similarity.stages(embeddings, labels, seed=seed):
        metrics |= stage
    return metrics


def check_embeddings(name: str, embeddings: np.ndarray) -> np.ndarray:
    """Returns embeddings as float64 `[N, D]`.

    Args:
      name: Name of the embeddings in a message.
      embeddings: `[N, D]` floats.

    Raises:
      DataError: The shape is another one, or an embedding is not finite.
    """
    embeddings = np.asarray(embeddings, np.float64)
    if embeddings.ndim != 2 or not embeddings.shape[1]:
        raise DataError(f"{name} must be [N, D], got {list(embeddings.shape)}.")
    bad = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if len(bad):
        raise DataError(
            f"{len(bad):,} of {len(embeddings):,} embeddings of {name} are not finite, "
            f"the first is row {bad[0]:,}: leave them out, or embed the images again."
        )
    return embeddings


def check_pairs(
    a: np.ndarray, b: np.ndarray, dim: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns both sides of pairs as float64 `[N, D]`.

    Args:
      a: `[N, D]` floats.
      b: `[N, D]` floats.
      dim: Number of dimensions that a trained similarity compares; None for any.

    Raises:
      DataError: The shapes differ, or an embedding is not finite.
    """
    a, b = check_embeddings("a", a), check_embeddings("b", b)
    if a.shape != b.shape:
        raise DataError(
            f"a is {list(a.shape)} and b is {list(b.shape)}: give one row of each for "
            "every pair, of the same model."
        )
    if dim not in (None, a.shape[1]):
        raise DataError(
            f"The similarity was trained on embeddings of {dim} numbers, and these "
            f"have {a.shape[1]}: give those of the same model."
        )
    return a, b


def check_scores(scores: np.ndarray) -> np.ndarray:
    """Returns scores as float64.

    Args:
      scores: `[N]` floats.

    Raises:
      DataError: A score is not finite.
    """
    scores = np.asarray(scores, np.float64)
    num_bad = int(np.count_nonzero(~np.isfinite(scores)))
    if num_bad:
        raise DataError(
            f"The similarity gives {num_bad:,} of {len(scores):,} pairs no finite "
            "score: train it again, at a lower rate."
        )
    return scores


def unit_rows(embeddings: np.ndarray) -> np.ndarray:
    """Returns embeddings of length 1, float64; those of zeros stay.

    Args:
      embeddings: `[N, D]` floats.
    """
    embeddings = np.asarray(embeddings, np.float64)
    # Squares of very small or large numbers would leave the range of floats.
    largest = np.abs(embeddings).max(axis=1, keepdims=True, initial=0.0)
    embeddings = embeddings / np.where(largest > 0, largest, 1.0)
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return embeddings / np.where(norms > 0, norms, 1.0)
