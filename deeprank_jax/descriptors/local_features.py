"""Vocabularies of local features, by k-means."""

from collections.abc import Callable
from concurrent import futures

import numpy as np
import threadpoolctl

from deeprank_jax.descriptors.base import Progress
from deeprank_jax.errors import DataError, needs_extra

# From an image `[H, W, 3]` to its local features `[P, D]`.
Extract = Callable[[np.ndarray], np.ndarray]
# More images add few new features.
_NUM_IMAGES = 1_000
_BATCH, _EPOCHS = 4_096, 10


def draw_features(
    extract: Extract,
    images: np.ndarray,
    num: int,
    *,
    seed: int,
    workers: int = 1,
    progress: Progress = iter,
) -> np.ndarray:
    """Draws local features of some images at random.

    Args:
      extract: Function from an image to its local features; `P` may be 0.
      images: `[M, H, W, 3]` uint8, images, of which at most 1,000 are drawn.
      num: Number of features to draw; each image gives an equal share, or all of its
        features if they are fewer.
      seed: Seed of the draws; the result does not depend on the number of threads.
      workers: Number of threads that share the images.
      progress: Wrapper of the images in a progress bar.

    Returns:
      `[F, D]` float32, `F` at most about `num`; `[0, 0]` if there are no images.
    """
    rng = np.random.default_rng(seed)
    indices = np.sort(rng.permutation(len(images))[:_NUM_IMAGES])
    share = -(-num // max(len(indices), 1))

    def draw(index: int) -> np.ndarray:
        features = extract(images[index])
        image_rng = np.random.default_rng((seed, index))
        return features[image_rng.permutation(len(features))[:share]]

    pool = futures.ThreadPoolExecutor(max(1, workers))
    with threadpoolctl.threadpool_limits(1), pool:
        features = list(progress(pool.map(draw, indices.tolist())))
    return np.concatenate(features) if features else np.zeros((0, 0), np.float32)


def check_enough(features: np.ndarray, num: int, name: str, option: str) -> None:
    """Checks that the features have enough distinct values for the clusters.

    Args:
      features: `[F, D]` float, features to cluster.
      num: Number of clusters.
      name: Name of the descriptor in the message.
      option: Option of the descriptor with the number of clusters.

    Raises:
      DataError: Fewer than `num` of the features are distinct.
    """
    distinct = len(np.unique(features, axis=0)) if len(features) else 0
    if distinct < num:
        raise DataError(
            f"{name} needs at least {option}={num} distinct local features, the images "
            f"have {distinct}: give more images, or reduce {option}."
        )


def learn_words(features: np.ndarray, num: int, *, seed: int) -> np.ndarray:
    """Returns the centres of `num` clusters of local features, by k-means.

    Args:
      features: `[F, D]` float32, features with at least `num` distinct rows.
      num: Number of clusters `K`.
      seed: Seed of the clustering.

    Returns:
      `[K, D]` float32.

    References:
      Sculley, Web-Scale K-Means Clustering, 2010,
      https://doi.org/10.1145/1772690.1772862.
    """
    # Slow to import, and few runs learn a descriptor.
    with needs_extra("train"):
        from sklearn import cluster

    # A fixed number of steps: early stopping would depend on the order in which
    # threads add numbers.
    kmeans = cluster.MiniBatchKMeans(
        num,
        init_size=3 * num,
        n_init=1,
        batch_size=_BATCH,
        max_iter=_EPOCHS,
        max_no_improvement=None,
        tol=0.0,
        random_state=seed,
    )
    with threadpoolctl.threadpool_limits(1):
        return kmeans.fit(features).cluster_centers_.astype(np.float32)


def nearest_words(features: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Returns `[F]` ints, the row of the nearest word for each feature.

    Args:
      features: `[F, D]` float32, local features.
      words: `[K, D]` float32, vocabulary; ties go to the first word.
    """
    # Without the feature's norm, which does not change the order.
    return (np.square(words).sum(axis=1) - 2.0 * features @ words.T).argmin(axis=1)
