"""Histograms of oriented gradients."""

import numpy as np

from deeprank_jax.descriptors.images import check_images, check_size
from deeprank_jax.errors import needs_extra

_CELL, _BLOCK, _ORIENTATIONS = 8, 2, 9


def hog(images: np.ndarray) -> np.ndarray:
    """Returns the histograms of oriented gradients of each image.

    Args:
      images: `[N, H, W, 3]` uint8, images of at least 16 x 16 pixels; `N` may be 0.
        A pixel's gradient is that of its steepest channel.

    Returns:
      `[N, (H // 8 - 1) * (W // 8 - 1) * 36]` float32: 9 orientations in cells of 8 x 8
      pixels, in overlapping blocks of 2 x 2 cells, normalised by L2-Hys.

    Raises:
      DataError: The images are too small.
      ValueError: The images have another shape or type.

    References:
      Dalal and Triggs, Histograms of Oriented Gradients for Human Detection, 2005,
      https://doi.org/10.1109/CVPR.2005.177.
    """
    # Slow to import, and most runs compute only pixels.
    with needs_extra("train"):
        from skimage import feature

    check_images(images)
    check_size(images, _CELL * _BLOCK, "hog")
    blocks = [side // _CELL - _BLOCK + 1 for side in images.shape[1:3]]
    size = int(np.prod(blocks)) * _BLOCK**2 * _ORIENTATIONS
    histograms = np.empty((len(images), size), np.float32)
    for image, out in zip(images, histograms, strict=True):
        out[:] = feature.hog(
            image,
            orientations=_ORIENTATIONS,
            pixels_per_cell=(_CELL, _CELL),
            cells_per_block=(_BLOCK, _BLOCK),
            block_norm="L2-Hys",
            channel_axis=-1,
        )
    return histograms
