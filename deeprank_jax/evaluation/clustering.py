"""Agreement of k-means clusters of the embeddings with the classes.

A partition is scored as a whole, so that there are no scores per query and no
intervals. Clustering visits all records and clusters many times: this evaluator is off
by default.
"""

from collections.abc import Iterator, Mapping
import math
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import scipy

from deeprank_jax.errors import needs_extra
from deeprank_jax.evaluation.scores import Evaluator, check_rows

# Records compared at a time, and with how many clusters at most: 64 MiB as float32.
_BLOCK, _BLOCK_VALUES = 512, 2**24
# As in FAISS and pytorch-metric-learning: few clusters change later on.
_NUM_ITERATIONS = 20


class Clustering(Evaluator):
    """NMI and AMI of k-means clusters, as many as there are classes.

    References:
      Vinh et al., Information Theoretic Measures for Clusterings Comparison, 2010,
      https://jmlr.org/papers/v11/vinh10a.html.
    """

    METRICS: ClassVar[Mapping[str, str]] = {
        "nmi": "Normalized mutual information of k-means clusters and classes.",
        "ami": "Mutual information of clusters and classes, adjusted for chance.",
        "num_clusters": "Number of clusters, which is the number of classes.",
    }

    def __init__(
        self,
        labels: np.ndarray,
        *,
        num_restarts: int = 1,
        num_iterations: int = _NUM_ITERATIONS,
        seed: int = 0,
    ):
        """Creates the evaluator.

        Args:
          labels: `[N, L]` int, labels from coarse to fine; two records are of one class
            if their last label is the same.
          num_restarts: Number of starts of k-means, the best of which counts.
          num_iterations: Maximal number of updates of the centers.
          seed: Seed of the starts.

        Raises:
          ValueError: `num_restarts` or `num_iterations` is less than 1.
        """
        _check_at_least_1(num_restarts=num_restarts, num_iterations=num_iterations)
        self._labels = np.asarray(labels)
        self._options = {
            "num_restarts": num_restarts,
            "num_iterations": num_iterations,
            "seed": seed,
        }

    def run(
        self,
        embeddings: np.ndarray,
        where: np.ndarray | None = None,
        *,
        queries: np.ndarray | None = None,
    ) -> Iterator[tuple[str, float]]:
        """Yields `nmi`, `ami` and `num_clusters`.

        NMI is the mutual information of cluster and class divided by the mean of their
        entropies, in `[0, 1]`. It grows with the number of clusters, even for random
        clusters; AMI is corrected for that: 0 for random clusters, 1 where the clusters
        are the classes.

        Args:
          embeddings: `[N, D]` float, one row per record.
          where: Optional `[N]` bool, the records that take part.
          queries: Unused, None; a similarity that is not symmetric has no clusters, and
            gives no metrics.

        Yields:
          Names and values; all 0 without records. Where all are of one class there is
          one cluster, and both are 1.

        Raises:
          ValueError: There is not one row per record, or one is not finite.
        """
        if queries is not None:
            return
        embeddings, where, _ = check_rows(len(self._labels), embeddings, where, None)
        classes = np.unique(self._labels[where, -1], return_inverse=True)[1]
        num = int(classes.max(initial=-1)) + 1
        if not num:
            yield from (("nmi", 0.0), ("ami", 0.0), ("num_clusters", 0.0))
            return
        with needs_extra("train"):
            from sklearn import metrics
        clusters = kmeans(embeddings[where], num, **self._options)
        yield "nmi", float(metrics.normalized_mutual_info_score(classes, clusters))
        yield "ami", float(metrics.adjusted_mutual_info_score(classes, clusters))
        yield "num_clusters", float(num)


def kmeans(
    rows: np.ndarray,
    num_clusters: int,
    *,
    num_restarts: int = 1,
    num_iterations: int = _NUM_ITERATIONS,
    seed: int = 0,
) -> np.ndarray:
    """Returns the cluster of each row, by Lloyd's algorithm.

    Each start takes random rows, without replacement, as centers, as FAISS does. A
    cluster without rows gets the row that is farthest from its center. The iterations
    end when no center moves. One device computes everything, a block of rows at a time.

    Args:
      rows: `[N, D]` finite floats.
      num_clusters: Number of clusters, from 1 to `N`.
      num_restarts: Number of starts; the one with the nearest centers counts.
      num_iterations: Maximal number of updates of the centers.
      seed: Seed of the starts.

    Returns:
      `[N]` int in `[0, num_clusters)`.

    Raises:
      ValueError: A number is out of range.

    References:
      Lloyd, Least Squares Quantization in PCM, 1982,
      https://doi.org/10.1109/TIT.1982.1056489.
    """
    if not 1 <= num_clusters <= len(rows):
        raise ValueError(
            f"num_clusters={num_clusters} of {len(rows)} rows: it must be from 1 to "
            f"{len(rows)}."
        )
    _check_at_least_1(num_restarts=num_restarts, num_iterations=num_iterations)
    rng = np.random.default_rng(seed)
    rows = np.asarray(rows, np.float32)
    # Keeps the distances and reduces their rounding.
    rows = rows - rows.mean(axis=0, dtype=np.float64).astype(np.float32)
    starts = [
        _lloyd(rows, rng.choice(len(rows), num_clusters, replace=False), num_iterations)
        for _ in range(num_restarts)
    ]
    return min(starts, key=lambda start: start[1])[0]


def _check_at_least_1(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}.")


def _lloyd(
    rows: np.ndarray, first: np.ndarray, num_iterations: int
) -> tuple[np.ndarray, float]:
    """Returns the cluster of each row, `[N]`, and the sum of squared distances.

    A row whose center did not move can only change to a center that did: distances to
    the others, soon the majority, are not computed again.
    """
    centers = rows[first]
    num = len(centers)
    cluster, distance = _nearest(rows, centers, num)
    for _ in range(num_iterations):
        before, centers = centers, _means(rows, cluster, distance, centers)
        moved = np.any(before != centers, axis=1)
        if not moved.any():
            break
        stale = moved[cluster]
        cluster[stale], distance[stale] = _nearest(rows[stale], centers, num)
        fresh = np.flatnonzero(~stale)
        # Powers of two, so that few sizes are compiled.
        size = min(num, 2 ** math.ceil(math.log2(np.count_nonzero(moved))))
        near, gap = _nearest(rows[fresh], centers[moved], size)
        near = np.flatnonzero(moved)[near]
        nearer = gap < distance[fresh]
        cluster[fresh[nearer]], distance[fresh[nearer]] = near[nearer], gap[nearer]
    return cluster, float(distance.sum(dtype=np.float64))


def _means(
    rows: np.ndarray, cluster: np.ndarray, distance: np.ndarray, centers: np.ndarray
) -> np.ndarray:
    """Returns the mean of each cluster's rows, `[K, D]` float32.

    Assigns the farthest rows to empty clusters, changing `cluster` in place.
    """
    num = len(centers)
    empty = np.flatnonzero(np.bincount(cluster, minlength=num) == 0)
    farthest = np.argsort(-distance, kind="stable")[: len(empty)]
    farthest = farthest[distance[farthest] > 0]
    cluster[farthest] = empty[: len(farthest)]
    counts = np.bincount(cluster, minlength=num)
    ones = np.ones(len(rows), np.float32)
    member = scipy.sparse.csr_array(
        (ones, (cluster, np.arange(len(rows)))), shape=(num, len(rows))
    )
    means = (member @ rows) / np.maximum(counts, 1)[:, None].astype(np.float32)
    return np.where(counts[:, None] > 0, means, centers)


def _nearest(
    rows: np.ndarray, centers: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns each row's nearest center, `[N]` ints, and squared distance, `[N]`.

    Every block has the same shape, with `size` centers, of which the padding is at
    infinity: it is compiled once.
    """
    cluster = np.zeros(len(rows), np.int64)
    distance = np.zeros(len(rows), np.float32)
    norms = np.full(size, np.inf, np.float32)
    norms[: len(centers)] = np.einsum("kd,kd->k", centers, centers)
    padded = np.pad(centers, ((0, size - len(centers)), (0, 0)))
    on_device = jnp.asarray(padded), jnp.asarray(norms)
    step = max(1, min(_BLOCK, _BLOCK_VALUES // size))
    results = []
    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        filled = np.pad(block, ((0, step - len(block)), (0, 0)))
        # All blocks are dispatched before the first result is waited for.
        results.append(_nearest_of_block(filled, *on_device))
    for start, result in zip(range(0, len(rows), step), results, strict=True):
        part = slice(start, min(start + step, len(rows)))
        num = part.stop - part.start
        cluster[part], distance[part] = (np.asarray(x)[:num] for x in result)
    return cluster, distance


@jax.jit
def _nearest_of_block(rows, centers, norms):
    """Returns the nearest center and its squared distance, `[B]` each."""
    products = jnp.matmul(centers, rows.T, precision=jax.lax.Precision.HIGHEST)
    # The row's own norm is the same for all centers.
    gaps = norms[:, None] - 2.0 * products
    least = jnp.min(gaps, axis=0)
    # Down the columns and without argmin, XLA:CPU takes less than half the time.
    number = jnp.arange(len(centers))[:, None]
    nearest = jnp.min(jnp.where(gaps == least[None], number, len(centers)), axis=0)
    row_norms = jnp.sum(jnp.square(rows), axis=1)
    return nearest, jnp.maximum(row_norms + least, 0.0)
