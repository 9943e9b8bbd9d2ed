"""Gaussian noise of pixels, always the same for a record."""

import numpy as np

# Separates these draws from others that are seeded by small numbers.
_STREAM = 7_919


def add_noise(images: np.ndarray, sigma: float, indices: np.ndarray) -> np.ndarray:
    """Returns images with Gaussian noise, cut off at the ends of the pixel range.

    The draw of a record depends on its index and the size of the image alone, so that
    every network sees the same images; another `sigma` scales the same draw.

    Args:
      images: `[B, H, W, 3]` uint8.
      sigma: Standard deviation, as a share of the pixel range.
      indices: `[B]` int, index of the record of each image, at least 0.

    Returns:
      `[B, H, W, 3]` uint8, in new memory.
    """
    noisy = np.empty_like(images)
    for image, out, index in zip(images, noisy, indices, strict=True):
        rng = np.random.default_rng((_STREAM, int(index)))
        noise = rng.standard_normal(image.shape, np.float32)
        out[...] = np.clip(np.rint(image + 255.0 * sigma * noise), 0, 255)
    return noisy


def check_sigma(name: str, sigma: float) -> None:
    """Checks a standard deviation of noise.

    Args:
      name: Name of the option.
      sigma: Standard deviation, as a share of the pixel range.

    Raises:
      ValueError: It is not from 0 to 1.
    """
    if not 0 <= sigma <= 1:
        raise ValueError(
            f"{name} must be from 0 to 1, a share of the pixel range, got {sigma}."
        )
