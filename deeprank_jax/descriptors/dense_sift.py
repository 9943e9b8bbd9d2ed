"""How edges run around each point of a grid: upright SIFT at three sizes.

Convention: a patch without any edge is all 0, every other one has unit length.
"""

import functools

import cv2
import numpy as np

DIM = 128
SMALLEST = 16
# Ours: OpenCV's size of a key point, and the pixels from one to the next. A patch is
# six times as wide: 12, 24 and 48 pixels. Small drawings have too few corners for
# SIFT's own detector.
_SIZES_AND_STEPS = ((2.0, 4), (4.0, 6), (8.0, 12))


def check_size(images: np.ndarray, name: str) -> None:
    """Checks that the images are large enough.

    Args:
      images: `[N, H, W, 3]`.
      name: of the descriptor, for the message.

    Raises:
      ValueError: `H` or `W` is less than 16.
    """
    height, width = images.shape[1:3]
    if min(height, width) < SMALLEST:
        raise ValueError(
            f"{name} needs images of at least {SMALLEST} x {SMALLEST} pixels, got "
            f"{height} x {width}: read them larger."
        )


def dense_sift(image: np.ndarray) -> np.ndarray:
    """Returns the square-rooted SIFT descriptor of each point of a grid.

    Args:
      image: `[H, W, 3]` uint8 RGB, at least 16 x 16 pixels; only its lightness counts.

    Returns:
      `[P, 128]` float32, not negative, in the order of `positions`; 504 points in an
      image of 72 x 72 pixels. A row has unit length or, if nothing changes within its
      patch, is 0.

    References:
      Lowe, Distinctive Image Features from Scale-Invariant Keypoints, 2004,
      https://doi.org/10.1023/B:VISI.0000029664.99615.94.
      Arandjelovic and Zisserman, Three Things Everyone Should Know to Improve Object
      Retrieval, 2012, https://doi.org/10.1109/CVPR.2012.6248018, takes the root.
    """
    gray = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    points = [
        cv2.KeyPoint(x, y, size, 0.0) for x, y, size in _points(*gray.shape).tolist()
    ]
    _, found = cv2.SIFT.create().compute(gray, points)
    totals = found.sum(axis=1, keepdims=True)
    return np.sqrt(found / np.maximum(totals, 1.0))


def positions(height: int, width: int) -> np.ndarray:
    """Returns where the grid's points lie, `[P, 2]` float32.

    Args:
      height: of the image, in pixels.
      width: of the image, in pixels.

    Returns:
      x and y, -0.5 at the first pixel and 0.5 at the last.
    """
    ends = np.array((width - 1, height - 1), np.float32)
    return _points(height, width)[:, :2] / ends - np.float32(0.5)


@functools.lru_cache(maxsize=8)
def _points(height: int, width: int) -> np.ndarray:
    """Returns `[P, 3]` float32: x, y and size, each grid in the image's middle."""
    points = []
    for size, step in _SIZES_AND_STEPS:
        rows, columns = (
            (side - 1) % step / 2 + np.arange(0, side, step) for side in (height, width)
        )
        y, x = np.meshgrid(rows, columns, indexing="ij")
        points.append(np.stack([x, y, np.full_like(x, size)], axis=-1).reshape(-1, 3))
    return np.concatenate(points).astype(np.float32)
