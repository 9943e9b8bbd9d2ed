r"""OASIS, a bilinear similarity learned on top of fixed features.

The similarity is large for similar images, and not symmetric:

.. math::
  S_W(a, b) = a^T W b

References:
  Chechik et al., Large Scale Online Learning of Image Similarity Through Ranking, 2010,
  https://www.jmlr.org/papers/v11/chechik10a.html.
"""

from collections.abc import Callable, Iterable, Sequence
import dataclasses
import os
import pathlib

import numpy as np

from deeprank_jax import checksums, files
from deeprank_jax.errors import DataError
from deeprank_jax.relevance import Relevance
from deeprank_jax.sampling import Candidates, create_whole_sampler

# Triplets whose losses are computed by one matrix product.
_BLOCK = 256
_ARRAYS = ("weights", "loss_share", "counts", "aggressiveness")

Batches = Iterable[np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Oasis:
    """A learned similarity.

    Attributes:
      weights: `[D, D]` float64, W.
      loss_share: `[K]` float64, share of each batch's triplets with a loss, before the
        step on the triplet; it falls during training.
      num_triplets: Number of triplets trained on.
      num_updates: Number of triplets that changed W.
      aggressiveness: Maximal step length, C.
    """

    weights: np.ndarray
    loss_share: np.ndarray
    num_triplets: int
    num_updates: int
    aggressiveness: float

    def similarity(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Returns `S_W(a, b)`, `[...]` float64.

        Args:
          a: `[..., D]` floats, the features of queries.
          b: `[..., D]` floats, the features of the gallery.
        """
        return np.sum((np.asarray(a, np.float64) @ self.weights) * b, axis=-1)

    def order_share(self, features: np.ndarray, triplets: np.ndarray) -> float:
        """Returns the share of triplets whose positive is strictly more similar.

        Args:
          features: `[N, D]` floats.
          triplets: `[T, 3]` int, rows of anchor, positive, negative.
        """
        anchors, positives, negatives = (features[rows] for rows in triplets.T)
        gaps = self.similarity(anchors, positives - negatives)
        return float(np.mean(gaps > 0)) if len(gaps) else 0.0

    def as_embeddings(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns embeddings whose squared distances rank as the similarity does.

        The largest inner product becomes the smallest distance if the gallery's vectors
        get equal length by one more dimension, in which the queries are 0. All are then
        scaled to length 1, which keeps the order of each query's gallery.

        Args:
          features: `[N, D]` finite floats.

        Returns:
          Queries and gallery, `[N, D + 1]` float32 each. A query of features 0, to
          which everything is equally similar, is 0 and equally far from all.

        References:
          Bachrach et al., Speeding Up the Xbox Recommender System Using a Euclidean
          Transformation for Inner-Product Spaces, 2014,
          https://doi.org/10.1145/2645710.2645741.
        """
        features = _checked_features(features)
        squares = np.square(features).sum(axis=1)
        longest = squares.max()
        last = np.sqrt(longest - squares)
        gallery = np.column_stack([features, last]) / (np.sqrt(longest) or 1.0)
        queries = np.column_stack([features @ self.weights, np.zeros(len(features))])
        lengths = np.linalg.norm(queries, axis=1, keepdims=True)
        queries /= np.where(lengths > 0, lengths, 1.0)
        return queries.astype(np.float32), gallery.astype(np.float32)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a file for `load_oasis`, whole or not at all.

        Args:
          path: Path of an .npz file.
        """
        path = pathlib.Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as file:
            np.savez(
                file,
                weights=self.weights,
                loss_share=self.loss_share,
                counts=np.array([self.num_triplets, self.num_updates]),
                aggressiveness=self.aggressiveness,
            )


def load_oasis(path: str | os.PathLike[str]) -> Oasis:
    """Reads a file written by `Oasis.save`.

    Raises:
      DataError: The file is of another kind or damaged, or cannot be read.
    """
    try:
        arrays = checksums.read_arrays(pathlib.Path(path))
        weights, share, counts, aggressiveness = (arrays[name] for name in _ARRAYS)
        num_triplets, num_updates = counts.tolist()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror or error}); make it readable, or "
            "train it again."
        ) from error
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{path}: not a file of OASIS, or damaged ({error}); train it again."
        ) from error
    return Oasis(
        weights=weights,
        loss_share=share,
        num_triplets=num_triplets,
        num_updates=num_updates,
        aggressiveness=float(aggressiveness),
    )


def draw_batches(
    candidates: Candidates,
    relevance: Relevance,
    num: int,
    *,
    seed: int,
    batch_size: int = 1024,
    mode: str = "importance",
    positive_cap: float = 1.0,
    min_relevance_gap: float = 0.01,
    out_of_class: float = 0.2,
) -> Batches:
    """Draws triplets as for a network, but from whole categories.

    Args:
      candidates: Records of the training split.
      relevance: Relevance of two records.
      num: Number of batches.
      seed: Seed of the draws, at least 0.
      batch_size: Number of triplets per batch.
      mode: Mode of the sampler, see `TripletSampler`, as the next three.
      positive_cap: Cap of a positive's relevance.
      min_relevance_gap: Least difference of relevance of a triplet.
      out_of_class: Share of negatives of other categories.

    Yields:
      `[batch_size, 3]` int64 records: anchor, positive, negative.

    Raises:
      NoTripletError: There is no triplet.
      ValueError: See `TripletSampler`.
    """
    sampler = create_whole_sampler(
        candidates,
        relevance,
        seed=seed,
        mode=mode,
        positive_cap=positive_cap,
        min_relevance_gap=min_relevance_gap,
        out_of_class=out_of_class,
    )
    for step in range(num):
        yield sampler.sample(step, batch_size).indices


def train_oasis(
    features: np.ndarray,
    triplets: Batches,
    *,
    aggressiveness: float,
    symmetric: bool = False,
    progress: Callable[[Batches], Batches] = iter,
) -> Oasis:
    r"""Learns W from triplets, one after another, starting from the identity.

    .. math::
      W \leftarrow W + \tau V, \quad V = q (p^+ - p^-)^T, \quad
      \tau = \min\left(C, \frac{\max(0, 1 - S_W(q, p^+) + S_W(q, p^-))}
      {\lVert V \rVert^2}\right)

    This is the sequential algorithm, although W is written once per block: the effect
    of a step on the similarities of later triplets is a product of two inner products.

    Args:
      features: `[N, D]` finite floats, best centred and about of length 1, since the
        margin is 1.
      triplets: Batches `[B, 3]` int, rows of anchor, positive, negative. A triplet with
        equal positive and negative has a loss, but changes nothing.
      aggressiveness: Maximal step length C, above 0.
      symmetric: True to keep W symmetric, by the symmetric part of V: the
        passive-aggressive step among symmetric matrices (the paper projects W).
      progress: Wrapper of the batches, e.g. a progress bar.

    Raises:
      ValueError: A feature is not finite, `aggressiveness` is not above 0, triplets
        have another shape or name rows that do not exist, or there is none.
    """
    features = _checked_features(features)
    _check_aggressiveness(aggressiveness)
    weights = np.eye(features.shape[1])
    loss_share, num_triplets, num_updates = [], 0, 0
    for batch in progress(triplets):
        batch = _checked_triplets(batch, len(features))
        lossy = 0
        for start in range(0, len(batch), _BLOCK):
            anchors, positives, negatives = features[batch[start : start + _BLOCK].T]
            gaps = positives - negatives
            steps, losses = _steps(weights, anchors, gaps, aggressiveness, symmetric)
            moves = steps > 0
            update = (anchors[moves] * steps[moves, None]).T @ gaps[moves]
            weights += (update + update.T) / 2 if symmetric else update
            lossy += np.count_nonzero(losses)
            num_updates += int(moves.sum())
        num_triplets += len(batch)
        if len(batch):
            loss_share.append(lossy / len(batch))
    if not num_triplets:
        raise ValueError("There are no triplets to learn from: draw at least one.")
    return Oasis(
        weights=weights,
        loss_share=np.array(loss_share),
        num_triplets=num_triplets,
        num_updates=num_updates,
        aggressiveness=float(aggressiveness),
    )


def choose_oasis(
    features: np.ndarray,
    triplets: Sequence[np.ndarray],
    judged: np.ndarray,
    *,
    aggressivenesses: Sequence[float] = (0.01, 0.03, 0.1, 0.3, 1.0),
    symmetric: bool = False,
) -> tuple[Oasis, dict[float, float]]:
    """Learns with each C, and returns the best on validation triplets.

    Args:
      features: `[N, D]` finite floats, of training and of validation.
      triplets: Training batches, see `train_oasis`.
      judged: `[T, 3]` int, triplets of validation, at least one.
      aggressivenesses: Values of C; among equally good ones the smallest is used.
      symmetric: True to keep W symmetric, see `train_oasis`.

    Returns:
      The best similarity, and the share of validation triplets in order by C.

    Raises:
      ValueError: See `train_oasis`; or there is no C or no validation triplet.
    """
    if not aggressivenesses:
        raise ValueError("aggressivenesses is empty: give at least one to choose from.")
    validation = _checked_triplets(judged, len(features))
    if not len(validation):
        raise ValueError("There are no validation triplets to choose by: give some.")
    similarities = [
        train_oasis(features, triplets, aggressiveness=value, symmetric=symmetric)
        for value in sorted(aggressivenesses)
    ]
    shares = {
        x.aggressiveness: x.order_share(features, validation) for x in similarities
    }
    return max(similarities, key=lambda x: shares[x.aggressiveness]), shares


def _steps(
    weights: np.ndarray,
    anchors: np.ndarray,
    gaps: np.ndarray,
    aggressiveness: float,
    symmetric: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the step `[B]` of each triplet, and its loss `[B]` before that.

    `products[i, j]` is the inner product of V_i and V_j, the change of triplet i's loss
    by a unit step along V_j.
    """
    losses = 1.0 - np.einsum("bd,bd->b", anchors @ weights, gaps)
    products = (anchors @ anchors.T) * (gaps @ gaps.T)
    if symmetric:
        across = anchors @ gaps.T
        products = (products + across * across.T) / 2
    steps = np.zeros(len(losses))
    squares = products.diagonal()
    for i in range(len(losses)):
        if losses[i] > 0 and squares[i] > 0:
            steps[i] = min(aggressiveness, losses[i] / squares[i])
            losses[i + 1 :] -= steps[i] * products[i, i + 1 :]
    return steps, np.maximum(losses, 0.0)


def _check_aggressiveness(aggressiveness: float) -> None:
    if not (aggressiveness > 0 and np.isfinite(aggressiveness)):
        raise ValueError(
            f"aggressiveness must be a number above 0, got {aggressiveness}: try 0.1."
        )


def _checked_features(features: np.ndarray) -> np.ndarray:
    """Returns `[N, D]` float64."""
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or not features.size:
        raise ValueError(
            f"features must be [N, D] with at least one row, got {features.shape}."
        )
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        raise ValueError(
            f"{len(bad):,} of {len(features):,} features are not finite, the first is "
            f"row {bad[0]:,}: leave out the images that could not be read."
        )
    return features


def _checked_triplets(triplets: np.ndarray, size: int) -> np.ndarray:
    triplets = np.asarray(triplets)
    if triplets.ndim != 2 or triplets.shape[1] != 3 or triplets.dtype.kind not in "iu":
        raise ValueError(
            f"triplets must be ints [B, 3], got {triplets.dtype} {triplets.shape}."
        )
    if np.any((triplets < 0) | (triplets >= size)):
        raise ValueError(
            f"triplets name rows {triplets.min()} to {triplets.max()}, there are "
            f"{size:,} features: they were drawn from another split."
        )
    return triplets
