"""Checks of the images that descriptors accept."""

import cv2
import numpy as np

from deeprank_jax import errors

# Threads share the images; OpenCV's own would compete for the cores.
cv2.setNumThreads(1)


def check_size(images: np.ndarray, smallest: int, name: str) -> None:
    """Checks that images are large enough.

    Args:
      images: `[N, H, W, 3]` uint8, images.
      smallest: Least height and width in pixels.
      name: Name of the descriptor in the message.

    Raises:
      DataError: `H` or `W` is less than `smallest`.
    """
    height, width = images.shape[1:3]
    if min(height, width) < smallest:
        raise errors.DataError(
            f"{name} needs images of at least {smallest} x {smallest} pixels, got "
            f"{height} x {width}: use a larger image size."
        )


def check_images(images: np.ndarray) -> None:
    """Checks that images are uint8 `[N, H, W, 3]`; `N` may be 0.

    Raises:
      ValueError: The images have another shape or type.
    """
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
        raise ValueError(
            f"images must be uint8 [N, H, W, 3], got {images.dtype} {images.shape}."
        )
