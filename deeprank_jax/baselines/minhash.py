"""The paper's L1HashKPCA: shares of equal hashes, made vectors by kernel PCA.

Convention: features are weights, 0 or more; what is negative is split off into columns
of its own. How similar two rows are is their weighted Jaccard similarity, the sum of
the smaller of each two weights over the sum of the larger. It falls with the L1
distance: if `s` is the sum of both rows, `distance = s * (1 - J) / (1 + J)`.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
import dataclasses
import functools
from typing import Any

import numpy as np

from deeprank_jax.errors import needs_extra

# Values held at a time by each thread: 16 MiB as float32, and few enough for a core's
# own memory.
_BLOCK_VALUES, _TILE_VALUES = 2**22, 2**16
# Of rows without any weight, which are equal to one another alone.
_EMPTY = -1
_NUM_LANDMARKS = 2_000


@dataclasses.dataclass(frozen=True, eq=False)
class L1HashKPCA:
    """Embeds features by their hashes' shares with those of some training records.

    Attributes:
      hashes: `[L, K]` int64, of the training records.
      kpca: scikit-learn's `KernelPCA`, fitted to their shares.
      num_features: `D`, how many columns features have.
      seed: of the hashes.
    """

    hashes: np.ndarray
    kpca: Any
    num_features: int
    seed: int

    def __call__(
        self,
        features: np.ndarray,
        *,
        workers: int = 1,
        progress: Callable[[Iterable], Iterable] = iter,
    ) -> np.ndarray:
        """Returns embeddings whose dot products approximate the centred similarities.

        Args:
          features: `[N, D]` finite floats, `N` may be 0.
          workers: threads that share the rows.
          progress: wraps the blocks of rows, e.g. in a progress bar.

        Returns:
          `[N, dim]` float32.

        Raises:
          ValueError: there are not `D` columns, or a value is not finite.
        """
        features = _checked(features)
        if features.shape[1] != self.num_features:
            raise ValueError(
                f"These hashes are of {self.num_features} features, got "
                f"{features.shape[1]}: give those that they were fitted to."
            )
        hashes = hash_features(
            features,
            self.hashes.shape[1],
            seed=self.seed,
            workers=workers,
            progress=progress,
        )
        embeddings = np.empty((len(features), self.kpca.n_components), np.float32)
        step = max(1, _BLOCK_VALUES // len(self.hashes))
        for start in range(0, len(features), step):
            rows = slice(start, start + step)
            shares = share_of_equal(hashes[rows], self.hashes)
            embeddings[rows] = self.kpca.transform(shares)
        return embeddings


def fit_l1_hash_kpca(
    features_train: np.ndarray,
    *,
    num_hashes: int = 512,
    dim: int = 256,
    num_landmarks: int = _NUM_LANDMARKS,
    seed: int = 0,
    workers: int = 1,
) -> L1HashKPCA:
    """Learns an embedding from the features of training records.

    Args:
      features_train: `[M, D]` finite floats.
      num_hashes: `K`; a share of equal hashes is off by `0.5 / sqrt(K)` or less, one
        standard deviation.
      dim: of the embeddings.
      num_landmarks: `L`, the training records that all others are compared with; of
        more, so many are drawn.
      seed: decides the hashes and the landmarks.
      workers: threads that share the rows.

    Raises:
      ValueError: `dim` or `num_hashes` is less than 1, a value is not finite, or the
        landmarks are too few, or too much alike, for `dim` components.

    References:
      Wang et al., Learning Fine-grained Image Similarity with Deep Ranking, 2014,
      https://arxiv.org/abs/1404.4661, names the method.
      Ioffe, Improved Consistent Sampling, Weighted Minhash and L1 Sketching, 2010,
      https://doi.org/10.1109/ICDM.2010.80.
      Schoelkopf, Smola and Mueller, Nonlinear Component Analysis as a Kernel
      Eigenvalue Problem, 1998, https://doi.org/10.1162/089976698300017467.
    """
    with needs_extra("train"):
        from sklearn import decomposition

    features = _checked(features_train)
    if min(dim, num_hashes) < 1:
        raise ValueError(
            f"dim and num_hashes must be at least 1, got {dim} and {num_hashes}."
        )
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(features))[:num_landmarks])
    if len(chosen) <= dim:
        raise ValueError(
            f"dim={dim} needs more than {dim} training records, got {len(chosen)}: "
            "give more, or less dim."
        )
    hashes = hash_features(features[chosen], num_hashes, seed=seed, workers=workers)
    kpca = decomposition.KernelPCA(dim, kernel="precomputed", eigen_solver="dense")
    kpca.fit(share_of_equal(hashes, hashes))
    # What is less is rounding, and dividing by it would enlarge it.
    if kpca.eigenvalues_[-1] <= 1e-6 * len(chosen):
        found = int(np.sum(kpca.eigenvalues_ > 1e-6 * len(chosen)))
        raise ValueError(
            f"The training records differ in {found} components, dim={dim} asks for "
            "more: give records that differ more, more hashes, or less dim."
        )
    return L1HashKPCA(hashes, kpca, features.shape[1], seed)


def hash_features(
    features: np.ndarray,
    num_hashes: int,
    *,
    seed: int,
    workers: int = 1,
    progress: Callable[[Iterable], Iterable] = iter,
) -> np.ndarray:
    """Returns hashes of which two rows share, on average, as many as they are similar.

    The probability that a hash of two rows is the same is their weighted Jaccard
    similarity; rows without any weight share all hashes with one another and none
    with others. Memory does not grow with the number of rows but for the result.

    Args:
      features: `[N, D]` finite floats; negative values count as weights of `D` further
        columns.
      num_hashes: `K`.
      seed: of the hashes: only those of one seed can be compared.
      workers: threads that share the rows; they let go of Python's lock.
      progress: wraps the blocks of rows, e.g. in a progress bar.

    Returns:
      `[N, K]` int64.

    Raises:
      ValueError: a value is not finite.

    References:
      Ioffe, Improved Consistent Sampling, Weighted Minhash and L1 Sketching, 2010,
      https://doi.org/10.1109/ICDM.2010.80.
    """
    features = _checked(features)
    hash_block = functools.partial(_hash_block, num_hashes=num_hashes, seed=seed)
    step = max(1, _BLOCK_VALUES // max(1, 2 * features.shape[1]))
    # No fewer blocks than threads.
    step = max(1, min(step, -(-len(features) // max(1, workers))))
    blocks = [features[i : i + step] for i in range(0, len(features), step)]
    with futures.ThreadPoolExecutor(max(1, workers)) as pool:
        found = list(progress(pool.map(hash_block, blocks)))
    return np.concatenate([np.zeros((0, num_hashes), np.int64), *found])


def share_of_equal(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns `[N, M]` float64, the share of hashes that each two rows have in common.

    Args:
      a: `[N, K]` ints.
      b: `[M, K]` ints, of the same seed.
    """
    counts = np.zeros((len(a), len(b)), np.int32)
    for own, other in zip(a.T, b.T, strict=True):
        counts += own[:, None] == other[None]
    return counts / a.shape[1]


def _hash_block(features: np.ndarray, *, num_hashes: int, seed: int) -> np.ndarray:
    """Returns `[N, K]` int64: which weight won, and in which of its cells it lies."""
    weights = np.maximum(np.concatenate([features, -features], axis=1), 0.0)
    used = np.flatnonzero(weights.any(axis=0))
    weights = weights[:, used]
    logs = np.full(weights.shape, -np.inf, np.float32)
    np.log(weights, out=logs, where=weights > 0)
    hashes = np.full((len(features), num_hashes), _EMPTY, np.int64)
    occupied = np.flatnonzero(weights.any(axis=1))
    step = max(1, _TILE_VALUES // max(1, len(used)))
    tiles = [occupied[i : i + step] for i in range(0, len(occupied), step)]
    tiles = [(tile, logs[tile]) for tile in tiles]
    for k, drawn in enumerate(_draws(2 * features.shape[1], num_hashes, seed)):
        width, offset, log_c = drawn[:, used]
        for tile, own in tiles:
            # Ioffe's t; of columns without weight it is -inf, and they never win.
            cells = np.floor(own / width + offset)
            keys = log_c - width * (cells + 1.0 - offset)
            winner = keys.argmin(axis=1)
            cell = np.take_along_axis(cells, winner[:, None], axis=1)[:, 0]
            hashes[tile, k] = _pack(used[winner], cell)
    return hashes


def _draws(num_columns: int, num_hashes: int, seed: int) -> Iterator[np.ndarray]:
    """Yields for each hash `[3, C]` float32: Ioffe's r, beta and the logarithm of c."""
    for k in range(num_hashes):
        rng = np.random.default_rng((seed, k))
        width = rng.standard_gamma(2.0, num_columns)
        offset = rng.random(num_columns)
        log_c = np.log(rng.standard_gamma(2.0, num_columns))
        yield np.stack([width, offset, log_c]).astype(np.float32)


def _pack(column: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Returns a number of its own for each column and cell, 0 or more."""
    return column * 2**32 + (cell.astype(np.int64) + 2**31)


def _checked(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, np.float32)
    if features.ndim != 2 or not np.isfinite(features).all():
        raise ValueError(
            f"features must be finite and [N, D], got {features.shape}"
            + (" with values that are not finite" if features.ndim == 2 else "")
            + ": leave out records that could not be read."
        )
    return features
