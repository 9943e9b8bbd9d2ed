"""Image resizing: an area average where an axis shrinks, cubic where it grows.

OpenCV does the work where it is installed. A core installation has none; there sparse
matrices give the same values to within 1 of 255, mostly equal where an image shrinks.
"""

import importlib.util

import numpy as np
from scipy import sparse

HAS_OPENCV = importlib.util.find_spec("cv2") is not None
if HAS_OPENCV:
    import cv2

# OpenCV leaves out smaller shares of a pixel, and rounds cubic weights to this step.
_MIN_SHARE, _CUBIC_STEP = 1e-3, 1 / 2048
_CUBIC_SHAPE = -0.75


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns an image of another size.

    Args:
      image: `[H, W, 3]` uint8.
      height: Height of the result in pixels.
      width: Width of the result in pixels.

    Returns:
      `[height, width, 3]` uint8, in memory of its own.
    """
    smaller = (min(image.shape[0], height), min(image.shape[1], width))
    # OpenCV's area mode averages only where it shrinks both axes or neither grows.
    shrunk = image
    if smaller != image.shape[:2]:
        shrunk = _shrink(image, *smaller)
    if shrunk.shape[:2] == (height, width):
        return np.array(shrunk)
    return _grow(shrunk, height, width)


def _shrink(image: np.ndarray, height: int, width: int) -> np.ndarray:
    if HAS_OPENCV:
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    rows = _area_weights(image.shape[0], height)
    columns = _area_weights(image.shape[1], width)
    resized = _weighted(image, rows, columns)
    if image.shape[:2] == (2 * height, 2 * width):
        # In this case alone OpenCV rounds halves up, not to even.
        resized = np.floor(resized + 0.5)
    return _to_uint8(resized)


def _grow(image: np.ndarray, height: int, width: int) -> np.ndarray:
    if HAS_OPENCV:
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
    rows = _cubic_weights(image.shape[0], height)
    columns = _cubic_weights(image.shape[1], width)
    return _to_uint8(_weighted(image, rows, columns))


def _area_weights(size: int, smaller: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns source pixels and weights, both `[smaller, m]`, of each result pixel."""
    scale = size / smaller
    start = np.arange(smaller)[:, None] * scale
    stop = np.minimum(start + scale, size)
    pixels = start.astype(int) + np.arange(int(scale) + 2)
    shares = np.minimum(pixels + 1, stop) - np.maximum(pixels, start)
    shares[shares <= _MIN_SHARE] = 0.0
    return np.minimum(pixels, size - 1), shares / (stop - start)


def _cubic_weights(size: int, larger: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns source pixels and weights, both `[larger, 4]`, of each result pixel."""
    centre = (np.arange(larger)[:, None] + 0.5) * (size / larger) - 0.5
    first = np.floor(centre).astype(int) - 1
    pixels = first + np.arange(4)
    x, a = np.abs(centre - pixels), _CUBIC_SHAPE
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    weights = np.rint(np.where(x <= 1, near, far) / _CUBIC_STEP) * _CUBIC_STEP
    return np.clip(pixels, 0, size - 1), weights


def _weighted(
    image: np.ndarray,
    rows: tuple[np.ndarray, np.ndarray],
    columns: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """Returns weighted sums `[height, width, 3]` of an image's pixels."""
    height, width, channels = image.shape
    sums = _matrix(*rows, height) @ image.reshape(height, width * channels)
    sums = sums.reshape(-1, width, channels).swapaxes(0, 1)
    num_rows = sums.shape[1]
    sums = _matrix(*columns, width) @ sums.reshape(width, num_rows * channels)
    return sums.reshape(-1, num_rows, channels).swapaxes(0, 1)


def _matrix(pixels: np.ndarray, weights: np.ndarray, size: int) -> sparse.csr_array:
    starts = np.arange(len(pixels) + 1) * pixels.shape[1]
    shape = (len(pixels), size)
    return sparse.csr_array((weights.ravel(), pixels.ravel(), starts), shape=shape)


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.clip(np.rint(values), 0, 255).astype(np.uint8))
