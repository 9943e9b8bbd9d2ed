"""Distances between images and degraded copies of them, by embedding and by pixels.

A model that is trained to ignore how a thing is drawn puts two drawings of it as near
as two copies of one; only both distances together identify a copy.
"""

from collections.abc import Callable, Sequence
import contextlib

import numpy as np

from deeprank_jax.data import decode
from deeprank_jax.data.records import Records
from deeprank_jax.descriptors.pixels import pixels
from deeprank_jax.errors import needs_extra

with needs_extra("train"):
    import cv2

_SCALE, _QUALITY = 0.75, 60
SHARE = 0.99
_MAX_IMAGES = 256


def read_some(records: Records, *, seed: int = 0) -> list[np.ndarray]:
    """Returns at most 256 images of a split, uint8 `[H, W, 3]` each.

    Args:
      records: Records of a split; unreadable images are skipped.
      seed: Seed of the choice of images.
    """
    images = []
    for index in np.random.default_rng(seed).permutation(len(records))[:_MAX_IMAGES]:
        with contextlib.suppress(decode.BadImageError, OSError):
            images.append(decode.decode_image(records.read(int(index))))
    return images


def measure_copies(
    images: Sequence[np.ndarray],
    prepare: Callable[[np.ndarray], np.ndarray],
    embed: Callable[[np.ndarray], np.ndarray],
) -> dict[str, float]:
    """Returns the distances within which 99 % of degraded copies lie.

    A degraded copy has three quarters of the height and width and is a JPEG of quality
    60.

    Args:
      images: Images, uint8 `[H, W, 3]` each.
      prepare: Function from an image to the network's input `[S, S, 3]`.
      embed: Function from `[N, S, S, 3]` to embeddings `[N, D]`.

    Returns:
      `distance` of embeddings and `pixel_distance`, the squared distances of both; 0
      if there is no image.
    """
    if not images:
        return {"distance": 0.0, "pixel_distance": 0.0}
    originals = np.stack([prepare(image) for image in images])
    degraded = np.stack([prepare(degrade(image)) for image in images])
    return {
        name: _quantile(fn(originals), fn(degraded))
        for name, fn in (("distance", embed), ("pixel_distance", pixels))
    }


def degrade(image: np.ndarray) -> np.ndarray:
    """Returns a smaller, compressed copy of an image `[H, W, 3]` uint8."""
    height, width = (max(1, round(side * _SCALE)) for side in image.shape[:2])
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    quality = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    ok, encoded = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), quality)
    if not ok:
        raise ValueError(f"OpenCV could not encode an image of shape {small.shape}.")
    return decode.decode_image(encoded.tobytes())


def _quantile(originals: np.ndarray, copies: np.ndarray) -> float:
    gaps = np.subtract(originals, copies, dtype=np.float64)
    squares = np.sum(np.square(gaps), axis=1)
    return float(np.quantile(squares, SHARE))
