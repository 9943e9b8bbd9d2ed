"""Which local features of the training images does a vocabulary learn from, and how?"""

from collections.abc import Callable, Iterable
from concurrent import futures

import numpy as np
import threadpoolctl

Extract = Callable[[np.ndarray], np.ndarray]
# Images show much the same from some hundreds on.
_NUM_IMAGES = 1_000
_BATCH, _PASSES = 4_096, 10


def draw_features(
    extract: Extract,
    images: np.ndarray,
    num: int,
    *,
    seed: int,
    workers: int = 1,
    progress: Callable[[Iterable], Iterable] = iter,
) -> np.ndarray:
    """Returns some local features of some images, drawn at random.

    Args:
      extract: maps an image `[H, W, 3]` to its local features `[P, D]`, `P` may be 0.
      images: `[M, H, W, 3]` uint8; of more than 1,000, as many are drawn.
      num: how many features to return; each image gives an equal share or, if it has
        fewer, all that it has.
      seed: decides which, whatever the number of threads.
      workers: threads that share the images.
      progress: wraps the images, e.g. in a progress bar.

    Returns:
      `[F, D]` float32, `F` at most about `num`; `[0, 0]` of no images.
    """
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(images))[:_NUM_IMAGES])
    share = -(-num // max(len(chosen), 1))

    def draw(index: int) -> np.ndarray:
        found = extract(images[index])
        own = np.random.default_rng((seed, index))
        return found[own.permutation(len(found))[:share]]

    pool = futures.ThreadPoolExecutor(max(1, workers))
    with threadpoolctl.threadpool_limits(1), pool:
        drawn = list(progress(pool.map(draw, chosen.tolist())))
    return np.concatenate(drawn) if drawn else np.zeros((0, 0), np.float32)


def check_enough(features: np.ndarray, num: int, name: str, option: str) -> None:
    """Checks that so many clusters can be told apart.

    Args:
      features: `[F, D]`, to be clustered.
      num: how many clusters are wanted.
      name: of the descriptor, for the message.
      option: its option that says how many.

    Raises:
      ValueError: fewer than `num` of the features are distinct.
    """
    distinct = len(np.unique(features, axis=0)) if len(features) else 0
    if distinct < num:
        raise ValueError(
            f"{name} learns {option}={num} from as many distinct local features or "
            f"more, the images show {distinct}: give more images, or less {option}."
        )


def learn_words(features: np.ndarray, num: int, *, seed: int) -> np.ndarray:
    """Returns the centres of `num` clusters of local features, by k-means.

    Args:
      features: `[F, D]` float32, at least `num` of them distinct.
      num: `K`.
      seed: decides the clusters, whatever the number of threads.

    Returns:
      `[K, D]` float32.

    References:
      Sculley, Web-Scale K-Means Clustering, 2010,
      https://doi.org/10.1145/1772690.1772862.
    """
    # Slow to import, and most runs learn no descriptor.
    from sklearn import cluster

    # A fixed number of steps: when to stop early would hang on sums whose order is
    # the threads'.
    kmeans = cluster.MiniBatchKMeans(
        num,
        init_size=3 * num,
        n_init=1,
        batch_size=_BATCH,
        max_iter=_PASSES,
        max_no_improvement=None,
        tol=0.0,
        random_state=seed,
    )
    with threadpoolctl.threadpool_limits(1):
        return kmeans.fit(features).cluster_centers_.astype(np.float32)


def nearest_words(features: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Returns `[F]` ints, which word is nearest to each feature.

    Args:
      features: `[F, D]` float32.
      words: `[K, D]` float32; of equally near ones the first counts.
    """
    # Less the feature's own norm, which all words share.
    return (np.square(words).sum(axis=1) - 2.0 * features @ words.T).argmin(axis=1)
