"""What every descriptor takes: a batch of RGB images of one size."""

import cv2
import numpy as np

# Threads share the images; OpenCV's own would fight with them for the cores.
cv2.setNumThreads(1)


def check_images(images: np.ndarray) -> None:
    """Checks that `images` are uint8 `[N, H, W, 3]`, `N` may be 0.

    Raises:
      ValueError: they have another shape or type.
    """
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
        raise ValueError(
            f"images must be uint8 [N, H, W, 3], got {images.dtype} {images.shape}."
        )
