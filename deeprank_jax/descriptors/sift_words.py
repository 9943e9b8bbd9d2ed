"""Bags of SIFT words: histograms of quantised SIFT descriptors."""

import dataclasses

import numpy as np
import threadpoolctl

from deeprank_jax.descriptors import dense_sift, local_features
from deeprank_jax.descriptors.base import Progress
from deeprank_jax.descriptors.images import check_images, check_size

_NAME = "sift_words"
_NUM_FEATURES = 100_000


@dataclasses.dataclass(frozen=True, eq=False)
class SiftWords:
    """Histograms of the words of a learned vocabulary.

    Attributes:
      words: `[K, 128]` float32, vocabulary.
    """

    words: np.ndarray

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Returns square roots of each image's histogram of words.

        The squared distance of two descriptors is twice the squared Hellinger distance
        of the histograms: 0 if they are equal, 2 if they have no word in common.

        Args:
          images: `[N, H, W, 3]` uint8, images of at least 16 x 16 pixels; `N` may be 0.

        Returns:
          `[N, K + 1]` float32, rows of unit length. The last column counts the patches
          without edges; a blank image is 0 elsewhere.

        Raises:
          DataError: The images are too small.
          ValueError: The images have another shape or type.
        """
        check_images(images)
        check_size(images, dense_sift.SMALLEST, _NAME)
        shares = np.empty((len(images), len(self.words) + 1), np.float32)
        with threadpoolctl.threadpool_limits(1):
            for image, out in zip(images, shares, strict=True):
                patches = dense_sift.dense_sift(image)
                words = local_features.nearest_words(patches, self.words)
                words[~patches.any(axis=1)] = len(self.words)
                out[:] = np.bincount(words, minlength=len(out)) / len(words)
        return np.sqrt(shares)


@dataclasses.dataclass(frozen=True)
class SiftWordsLearner:
    """Bags of SIFT words.

    Attributes:
      num_words: Number of words `K`; 512 to 2,048 do equally well on emoji.

    References:
      Sivic and Zisserman, Video Google: A Text Retrieval Approach to Object Matching
      in Videos, 2003, https://doi.org/10.1109/ICCV.2003.1238663. The grid and the root
      of the histogram are ours; the deep ranking paper says "SIFT-like" only.
    """

    num_words: int = 1024
    title = "bag of SIFT words"
    version = 2
    is_learned = True

    def fit(
        self,
        images: np.ndarray,
        *,
        seed: int = 0,
        workers: int = 1,
        progress: Progress = iter,
    ) -> SiftWords:
        """Learns the vocabulary from training images.

        Args:
          images: `[M, H, W, 3]` uint8, training images of at least 16 x 16 pixels.
          seed: Seed of the clustering.
          workers: Number of threads; the result does not depend on it.
          progress: Wrapper of the images in a progress bar.

        Raises:
          DataError: The images have fewer distinct patches than words, or are too
            small.
          ValueError: The images have another shape or type.
        """
        check_images(images)
        check_size(images, dense_sift.SMALLEST, _NAME)
        features = local_features.draw_features(
            _patches_with_edges,
            images,
            _NUM_FEATURES,
            seed=seed,
            workers=workers,
            progress=progress,
        )
        local_features.check_enough(features, self.num_words, _NAME, "num_words")
        words = local_features.learn_words(features, self.num_words, seed=seed)
        return SiftWords(words)


def _patches_with_edges(image: np.ndarray) -> np.ndarray:
    patches = dense_sift.dense_sift(image)
    return patches[patches.any(axis=1)]
