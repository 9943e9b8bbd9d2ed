"""Pixels of a small copy of the image."""

import cv2
import numpy as np


def pixels(images: np.ndarray, size: int = 16) -> np.ndarray:
    """Returns the pixels of each image, shrunk to a square.

    Args:
      images: `[N, H, W, 3]` uint8, images to describe; `N` may be 0.
      size: Side of the square in pixels; a pixel is the mean of its area.

    Returns:
      `[N, size * size * 3]` float32 in [0, 1].

    Raises:
      ValueError: The images have another shape or type.
    """
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
        raise ValueError(
            f"images must be uint8 [N, H, W, 3], got {images.dtype} {images.shape}."
        )
    small = np.empty((len(images), size, size, 3), np.float32)
    for image, out in zip(images, small, strict=True):
        # As floats: OpenCV would round the mean of bytes to a byte.
        resized = cv2.resize(
            image.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA
        )
        out[:] = resized / 255.0
    return small.reshape(len(images), size * size * 3)


def center_and_normalize(x: np.ndarray, mean: np.ndarray | None = None) -> np.ndarray:
    """Subtracts the mean over the set, then scales each row to unit length.

    Args:
      x: `[N, D]` float, rows of a set; `N` may be 0.
      mean: Optional `[D]` float64, mean of another set to subtract instead.

    Returns:
      `[N, D]` float32. A row equal to the mean has no direction and becomes 0.
    """
    x = np.asarray(x, np.float32)
    if not len(x):
        return x
    centered = x - (x.mean(axis=0, dtype=np.float64) if mean is None else mean)
    norms = np.linalg.norm(centered, axis=1, keepdims=True)
    # In float64 the mean of equal float32 rows is that row, to the last bit.
    scale = np.divide(1.0, norms, where=norms > 0, out=np.zeros_like(norms))
    return (centered * scale).astype(np.float32)
