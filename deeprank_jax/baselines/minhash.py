"""The paper's L1HashKPCA: shares of equal hashes, embedded by kernel PCA.

Features are weights of at least 0; negative values become weights of further columns.
The similarity of two rows is the weighted Jaccard similarity J, the sum of the smaller
of each two weights divided by the sum of the larger. It falls with the L1 distance: if
`s` is the sum of both rows, `distance = s * (1 - J) / (1 + J)`.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
import dataclasses
import functools
from typing import Any

import numpy as np

from deeprank_jax.errors import needs_extra

# Values held at a time by each thread: 16 MiB as float32, and few enough for a core's
# cache.
_BLOCK_VALUES, _TILE_VALUES = 2**22, 2**16
# Hash of rows without any weight, which equal only one another.
_EMPTY = -1
_NUM_LANDMARKS = 2_000


@dataclasses.dataclass(frozen=True, eq=False)
class L1HashKPCA:
    """Embeds features by the shares of hashes equal to those of training records.

    Attributes:
      hashes: `[L, K]` int64, hashes of the training records.
      kpca: KernelPCA of scikit-learn, fitted to their shares.
      num_features: Number of columns of the features, `D`.
      seed: Seed of the hashes.
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
          workers: Number of threads that share the rows.
          progress: Wrapper of the blocks of rows, e.g. a progress bar.

        Returns:
          `[N, dim]` float32.

        Raises:
          ValueError: There are not `D` columns, or a value is not finite.
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
      num_hashes: Number of hashes `K`; the standard deviation of a share of equal
        hashes is at most `0.5 / sqrt(K)`.
      dim: Dimension of the embeddings.
      num_landmarks: Maximal number `L` of random training records to compare with.
      seed: Seed of the hashes and the landmarks.
      workers: Number of threads that share the rows.

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
    landmarks = np.sort(rng.permutation(len(features))[:num_landmarks])
    if len(landmarks) <= dim:
        raise ValueError(
            f"dim={dim} needs more than {dim} training records, got {len(landmarks)}: "
            "give more, or less dim."
        )
    hashes = hash_features(features[landmarks], num_hashes, seed=seed, workers=workers)
    kpca = decomposition.KernelPCA(dim, kernel="precomputed", eigen_solver="dense")
    kpca.fit(share_of_equal(hashes, hashes))
    # Smaller eigenvalues are rounding errors, which dividing by them would enlarge.
    if kpca.eigenvalues_[-1] <= 1e-6 * len(landmarks):
        num_components = int(np.sum(kpca.eigenvalues_ > 1e-6 * len(landmarks)))
        raise ValueError(
            f"The training records differ in {num_components} components, dim={dim} "
            "asks for more: give records that differ more, more hashes, or less dim."
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
    """Returns hashes whose expected share of equal ones is the rows' similarity.

    The probability that a hash of two rows is the same is their weighted Jaccard
    similarity; rows without any weight share all hashes with one another and none
    with others. Only the result grows with the number of rows.

    Args:
      features: `[N, D]` finite floats; negative values count as weights of `D` further
        columns.
      num_hashes: Number of hashes, `K`.
      seed: Seed of the hashes: only hashes of one seed can be compared.
      workers: Number of threads that share the rows; they release Python's lock.
      progress: Wrapper of the blocks of rows, e.g. a progress bar.

    Returns:
      `[N, K]` int64.

    Raises:
      ValueError: A value is not finite.

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
        hashes = list(progress(pool.map(hash_block, blocks)))
    return np.concatenate([np.zeros((0, num_hashes), np.int64), *hashes])


def share_of_equal(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns `[N, M]` float64, the share of equal hashes of each two rows.

    Args:
      a: `[N, K]` int, hashes.
      b: `[M, K]` int, hashes of the same seed.
    """
    counts = np.zeros((len(a), len(b)), np.int32)
    for a_hashes, b_hashes in zip(a.T, b.T, strict=True):
        counts += a_hashes[:, None] == b_hashes[None]
    return counts / a.shape[1]


def _hash_block(features: np.ndarray, *, num_hashes: int, seed: int) -> np.ndarray:
    """Returns `[N, K]` int64, the winning weight and its cell in one number."""
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
    for k, draws in enumerate(_draws(2 * features.shape[1], num_hashes, seed)):
        width, offset, log_c = draws[:, used]
        for tile, tile_logs in tiles:
            # Ioffe's t; columns without weight have -inf, and never win.
            cells = np.floor(tile_logs / width + offset)
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
    """Returns a distinct number of at least 0 for each column and cell."""
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
