"""Dense SIFT: upright SIFT descriptors of three sizes on a grid.

Convention: the descriptor of a patch without edges is 0; all others have unit length.
"""

import functools

import cv2
import numpy as np

DIM = 128
SMALLEST = 16
# Ours: OpenCV's size of a key point, and the step of the grid in pixels. A patch is six
# times as wide: 12, 24 and 48 pixels. Small drawings have too few corners for SIFT's
# own detector.
_SIZES_AND_STEPS = ((2.0, 4), (4.0, 6), (8.0, 12))


def dense_sift(image: np.ndarray) -> np.ndarray:
    """Returns the square-rooted SIFT descriptor of each point of a grid.

    Args:
      image: `[H, W, 3]` uint8, RGB image of at least 16 x 16 pixels; only its
        lightness is used.

    Returns:
      `[P, 128]` float32, at least 0, in the order of `positions`; 504 points in an
      image of 72 x 72 pixels. A row has unit length, or is 0 if its patch is constant.

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
    _, histograms = cv2.SIFT.create().compute(gray, points)
    totals = histograms.sum(axis=1, keepdims=True)
    return np.sqrt(histograms / np.maximum(totals, 1.0))


def positions(height: int, width: int) -> np.ndarray:
    """Returns the positions of the grid's points, `[P, 2]` float32.

    Args:
      height: Height of the image in pixels.
      width: Width of the image in pixels.

    Returns:
      x and y, -0.5 at the first pixel and 0.5 at the last.
    """
    ends = np.array((width - 1, height - 1), np.float32)
    return _points(height, width)[:, :2] / ends - np.float32(0.5)


@functools.lru_cache(maxsize=8)
def _points(height: int, width: int) -> np.ndarray:
    """Returns `[P, 3]` float32: x, y and size, with each grid centred in the image."""
    points = []
    for size, step in _SIZES_AND_STEPS:
        rows, columns = (
            (side - 1) % step / 2 + np.arange(0, side, step) for side in (height, width)
        )
        y, x = np.meshgrid(rows, columns, indexing="ij")
        points.append(np.stack([x, y, np.full_like(x, size)], axis=-1).reshape(-1, 3))
    return np.concatenate(points).astype(np.float32)
