"""Histograms of LAB colours."""

import cv2
import numpy as np

from deeprank_jax.descriptors.images import check_images

# L* is in [0, 100]; a* and b* of sRGB colours are in [-108, 108]. Their number of bins
# is odd, so that all greys, at 0, fall into one bin.
_BINS = (4, 9, 9)
_LOWEST = np.array((0.0, -108.0, -108.0), np.float32)
_HIGHEST = np.array((100.0, 108.0, 108.0), np.float32)


def lab_histogram(images: np.ndarray) -> np.ndarray:
    """Returns square roots of each image's histogram of CIE L*a*b* colours.

    The squared distance of two descriptors is twice the squared Hellinger distance of
    the histograms: 0 if they are equal, 2 if the images have no colour in common.

    Args:
      images: `[N, H, W, 3]` uint8, sRGB images; `N` may be 0.

    Returns:
      `[N, 324]` float32, rows of unit length: 4 x 9 x 9 bins of L*, a* and b*.

    Raises:
      ValueError: The images have another shape or type.

    References:
      Wang et al., Learning Fine-grained Image Similarity with Deep Ranking, 2014,
      https://arxiv.org/abs/1404.4661, compares with a LAB histogram without stating
      its bins; these are ours.
    """
    check_images(images)
    num_bins = int(np.prod(_BINS))
    roots = np.zeros((len(images), num_bins), np.float32)
    bins = np.array(_BINS)
    for image, out in zip(images, roots, strict=True):
        lab = cv2.cvtColor(image.astype(np.float32) / 255.0, cv2.COLOR_RGB2Lab)
        places = ((lab - _LOWEST) / (_HIGHEST - _LOWEST) * bins).astype(int)
        places = np.clip(places, 0, bins - 1).reshape(-1, 3)
        flat = np.ravel_multi_index(tuple(places.T), _BINS)
        out[:] = np.sqrt(np.bincount(flat, minlength=num_bins) / len(flat))
    return roots
