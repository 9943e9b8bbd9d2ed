"""Wavelet signatures."""

import math

import cv2
import numpy as np

from deeprank_jax.descriptors.images import check_images

SIZE = 128
CORNER = 32
NUM_LARGEST = 60
_ROOT_HALF = math.sqrt(0.5)
# NTSC's luminance and two chrominances.
_RGB_TO_YIQ = np.array(
    ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)),
    np.float32,
)
# Ours: an average difference of 1, black and white, counts as much as 60 signs.
_AVERAGE_WEIGHT = math.sqrt(NUM_LARGEST)


def wavelet(images: np.ndarray) -> np.ndarray:
    """Returns the wavelet signature of each image: signs of its largest coefficients.

    The image, 128 x 128 in YIQ, is decomposed by Haar wavelets, all rows and then all
    columns (the standard decomposition). Only the signs of the 60 largest coefficients
    of each channel are used, besides the average. The squared distance of two
    signatures counts a coefficient that only one of them has once and one of opposite
    signs four times, and adds 60 times the squared differences of the averages (our
    weight; the paper fitted weights to its data).

    The signature covers only the 32 x 32 coarsest coefficients. They include 97 % of
    the largest on emoji, and on most of scikit-image's photographs, but 70 % on gravel
    and grass and 32 % on bricks, whose fine texture is left out.

    Args:
      images: `[N, H, W, 3]` uint8, RGB images, resized to 128 x 128; `N` may be 0.

    Returns:
      `[N, 3 * 32 * 32]` float32 of -1, 0 and 1. The first value of each channel is its
      average times the square root of 60; Y is in [0, 1].

    Raises:
      ValueError: The images have another shape or type.

    References:
      Jacobs, Finkelstein and Salesin, Fast Multiresolution Image Querying, 1995,
      https://doi.org/10.1145/218380.218454.
    """
    check_images(images)
    signatures = np.zeros((len(images), 3, CORNER, CORNER), np.float32)
    for image, out in zip(images, signatures, strict=True):
        resized = _resize(image.astype(np.float32) / 255.0)
        channels = np.moveaxis(cv2.transform(resized, _RGB_TO_YIQ), 2, 0)
        coefficients = decompose(channels)
        averages = coefficients[:, 0, 0] / SIZE
        coefficients[:, 0, 0] = 0.0
        out[:] = _signs_of_largest(coefficients)[:, :CORNER, :CORNER]
        out[:, 0, 0] = averages * _AVERAGE_WEIGHT
    return signatures.reshape(len(images), 3 * CORNER**2)


def decompose(x: np.ndarray) -> np.ndarray:
    """Returns the standard Haar decomposition, orthonormal, coarse to fine.

    Args:
      x: `[..., H, W]` float, values; `H` and `W` are powers of 2.

    Returns:
      `[..., H, W]` of the same type; `[..., 0, 0]` is the mean times `sqrt(H * W)`.
    """
    return _decompose_last(_decompose_last(x).swapaxes(-1, -2)).swapaxes(-1, -2)


def _decompose_last(x: np.ndarray) -> np.ndarray:
    """Decomposes the last axis by sums and differences of neighbours."""
    # Not by a matrix product: on a busy machine, BLAS's threads and those of `compute`
    # wait for one another for minutes.
    out = np.empty_like(x)
    while (size := x.shape[-1]) > 1:
        even, odd = x[..., ::2], x[..., 1::2]
        out[..., size // 2 : size] = (even - odd) * _ROOT_HALF
        x = (even + odd) * _ROOT_HALF
    out[..., :1] = x
    return out


def _resize(image: np.ndarray) -> np.ndarray:
    smaller = max(image.shape[:2]) < SIZE
    mode = cv2.INTER_LINEAR if smaller else cv2.INTER_AREA
    return cv2.resize(image, (SIZE, SIZE), interpolation=mode)


def _signs_of_largest(coefficients: np.ndarray) -> np.ndarray:
    """Returns `[C, H, W]`: signs of each channel's largest values, 0 elsewhere."""
    flat = coefficients.reshape(len(coefficients), -1)
    largest = np.argpartition(-np.abs(flat), NUM_LARGEST, axis=1)[:, :NUM_LARGEST]
    signs = np.zeros_like(flat)
    values = np.take_along_axis(flat, largest, axis=1)
    # Rounding errors have no sign: a grey image has no colour.
    values[np.abs(values) < 1e-3] = 0.0
    np.put_along_axis(signs, largest, np.sign(values), axis=1)
    return signs.reshape(coefficients.shape)
