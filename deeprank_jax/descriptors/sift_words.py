"""Which kinds of corners and edges an image has, wherever they are: a bag of words."""

from collections.abc import Callable, Iterable
import dataclasses

import numpy as np
import threadpoolctl

from deeprank_jax.descriptors import dense_sift, local_features
from deeprank_jax.descriptors.images import check_images

_NAME = "sift_words"
_NUM_FEATURES = 100_000


@dataclasses.dataclass(frozen=True, eq=False)
class SiftWords:
    """Describes images by how often each word of a vocabulary is seen in them.

    Attributes:
      words: `[K, 128]` float32.
    """

    words: np.ndarray

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Returns the square root of each image's histogram of words.

        The squared distance of two is twice the squared Hellinger distance of the
        histograms: 0 for the same, 2 for images that have no word in common.

        Args:
          images: `[N, H, W, 3]` uint8, at least 16 x 16 pixels, `N` may be 0.

        Returns:
          `[N, K + 1]` float32, rows of unit length. The last counts the patches
          without any edge, so that a blank image has a row of its own: 0 but there.

        Raises:
          ValueError: the images have another shape or type, or are too small.
        """
        check_images(images)
        dense_sift.check_size(images, _NAME)
        shares = np.empty((len(images), len(self.words) + 1), np.float32)
        with threadpoolctl.threadpool_limits(1):
            for image, out in zip(images, shares, strict=True):
                patches = dense_sift.dense_sift(image)
                found = local_features.nearest_words(patches, self.words)
                found[~patches.any(axis=1)] = len(self.words)
                out[:] = np.bincount(found, minlength=len(out)) / len(found)
        return np.sqrt(shares)


def fit_sift_words(
    images: np.ndarray,
    *,
    seed: int = 0,
    num_words: int = 1024,
    workers: int = 1,
    progress: Callable[[Iterable], Iterable] = iter,
) -> SiftWords:
    """Learns a vocabulary of SIFT descriptors.

    Args:
      images: `[M, H, W, 3]` uint8, for training; at least 16 x 16 pixels.
      seed: decides the words, whatever the number of threads.
      num_words: `K`; 512 to 2,048 do equally well on emoji.
      workers: threads that share the images.
      progress: wraps the images that are looked at, e.g. in a progress bar.

    Raises:
      ValueError: the images have another shape or type, are too small, or show fewer
        distinct patches than words are wanted.

    References:
      Sivic and Zisserman, Video Google: A Text Retrieval Approach to Object Matching
      in Videos, 2003, https://doi.org/10.1109/ICCV.2003.1238663. The grid and the root
      of the histogram are ours; the deep ranking paper says "SIFT-like" only.
    """
    check_images(images)
    dense_sift.check_size(images, _NAME)
    features = local_features.draw_features(
        _patches_with_edges,
        images,
        _NUM_FEATURES,
        seed=seed,
        workers=workers,
        progress=progress,
    )
    local_features.check_enough(features, num_words, _NAME, "num_words")
    return SiftWords(local_features.learn_words(features, num_words, seed=seed))


def _patches_with_edges(image: np.ndarray) -> np.ndarray:
    patches = dense_sift.dense_sift(image)
    return patches[patches.any(axis=1)]
