"""Local binary patterns."""

import cv2
import numpy as np

from deeprank_jax.descriptors.images import check_images, check_size
from deeprank_jax.errors import needs_extra

_NEIGHBORS, _RADIUS = 8, 1
_CODES = _NEIGHBORS + 2
_GRID = 2


def lbp(images: np.ndarray) -> np.ndarray:
    """Returns square roots of histograms of local binary patterns, on a 2 x 2 grid.

    A pixel's code is the number of its 8 neighbours at radius 1 that are at least as
    bright, if they are adjacent (`uniform`), else 9; so it does not change when the
    image is rotated. The outermost pixels have no code. The squared distance of two
    descriptors is the mean over the grid of twice the squared Hellinger distance of
    the histograms.

    Args:
      images: `[N, H, W, 3]` uint8, images of at least 4 x 4 pixels; `N` may be 0.

    Returns:
      `[N, 2 * 2 * 10]` float32, rows of unit length.

    Raises:
      DataError: The images are too small.
      ValueError: The images have another shape or type.

    References:
      Ojala, Pietikainen and Maenpaa, Multiresolution Gray-Scale and Rotation
      Invariant Texture Classification with Local Binary Patterns, 2002,
      https://doi.org/10.1109/TPAMI.2002.1017623.
    """
    # Slow to import, and most runs compute only pixels.
    with needs_extra("train"):
        from skimage import feature

    check_images(images)
    check_size(images, _GRID + 2 * _RADIUS, "lbp")
    shares = np.empty((len(images), _GRID, _GRID, _CODES), np.float32)
    inner = slice(_RADIUS, -_RADIUS)
    for image, out in zip(images, shares, strict=True):
        gray = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
        codes = feature.local_binary_pattern(gray, _NEIGHBORS, _RADIUS, "uniform")
        codes = codes[inner, inner].astype(int)
        for y, rows in enumerate(np.array_split(codes, _GRID)):
            for x, cell in enumerate(np.array_split(rows, _GRID, axis=1)):
                out[y, x] = np.bincount(cell.ravel(), minlength=_CODES) / cell.size
    return np.sqrt(shares / _GRID**2).reshape(len(images), _GRID**2 * _CODES)
