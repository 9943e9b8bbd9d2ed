"""Which small patterns of light and dark an image has: local binary patterns."""

import cv2
import numpy as np

from deeprank_jax.descriptors.images import check_images

_NEIGHBORS, _RADIUS = 8, 1
_CODES = _NEIGHBORS + 2
_GRID = 2


def lbp(images: np.ndarray) -> np.ndarray:
    """Returns the square roots of histograms of local binary patterns, on a 2 x 2 grid.

    A pixel's code is how many of its 8 neighbours at radius 1 are at least as bright,
    if they follow one another around it (`uniform`), else 9; so it is the same when
    the image is turned. The outermost pixels have no code. The squared distance of
    two descriptors is the mean, over the grid, of twice the squared Hellinger
    distance of the histograms.

    Args:
      images: `[N, H, W, 3]` uint8, at least 4 x 4 pixels, `N` may be 0.

    Returns:
      `[N, 2 * 2 * 10]` float32, rows of unit length.

    Raises:
      ValueError: the images have another shape or type, or are too small.

    References:
      Ojala, Pietikainen and Maenpaa, Multiresolution Gray-Scale and Rotation
      Invariant Texture Classification with Local Binary Patterns, 2002,
      https://doi.org/10.1109/TPAMI.2002.1017623.
    """
    # Slow to import, and most runs compute no descriptor but pixels.
    from skimage import feature

    check_images(images)
    smallest = _GRID + 2 * _RADIUS
    if min(images.shape[1:3]) < smallest:
        raise ValueError(
            f"lbp needs images of at least {smallest} x {smallest} pixels, got "
            f"{images.shape[1]} x {images.shape[2]}: read them larger."
        )
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
