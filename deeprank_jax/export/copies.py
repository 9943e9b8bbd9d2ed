"""Distances between images and degraded copies of them, by embedding and by pixels.

A model that is trained to ignore how a thing is drawn puts two drawings of it as near
as two copies of one; only both distances together identify a copy.
"""

from collections.abc import Callable

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


def measure_copies(
    records: Records,
    prepare: Callable[[np.ndarray], np.ndarray],
    embed: Callable[[np.ndarray], np.ndarray],
    *,
    seed: int = 0,
) -> dict[str, float]:
    """Returns the distances within which 99 % of degraded copies lie.

    A degraded copy has three quarters of the height and width and is a JPEG of quality
    60. At most 256 images are used.

    Args:
      records: Records of a split; unreadable images are skipped.
      prepare: Function from a decoded image to the network's input `[S, S, 3]`.
      embed: Function from `[N, S, S, 3]` to embeddings `[N, D]`.
      seed: Seed of the choice of images.

    Returns:
      `distance` of embeddings and `pixel_distance`, the squared distances of both; 0
      if no image could be read.
    """
    order = np.random.default_rng(seed).permutation(len(records))[:_MAX_IMAGES]
    originals, degraded = [], []
    for index in order:
        try:
            image = decode.decode_image(records.read(int(index)))
        except (decode.BadImageError, OSError):
            continue
        originals.append(prepare(image))
        degraded.append(prepare(degrade(image)))
    if not originals:
        return {"distance": 0.0, "pixel_distance": 0.0}
    pair = np.stack(originals), np.stack(degraded)
    return {
        name: _quantile(*map(fn, pair))
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
