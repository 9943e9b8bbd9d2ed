"""How far apart are an image and a worse copy of it, to a model and pixel by pixel?

A model that was taught to see past how a thing is drawn puts two drawings of it as near
as two copies of one; only both distances together tell a copy.
"""

from collections.abc import Callable

import cv2
import numpy as np

from deeprank_jax.data import decode
from deeprank_jax.data.records import Records
from deeprank_jax.descriptors.pixels import pixels

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
    """Returns within which distances 99 % of worse copies stay.

    A worse copy has three quarters of the height and width and is a JPEG of quality
    60. At most 256 images are looked at.

    Args:
      records: of a split; images that cannot be read are passed over.
      prepare: maps a decoded image to what the network sees, `[S, S, 3]`.
      embed: maps `[N, S, S, 3]` to embeddings `[N, D]`.
      seed: of which images are looked at.

    Returns:
      `distance` of embeddings and `pixel_distance`, the squared distances of both; 0
      if no image could be read.
    """
    order = np.random.default_rng(seed).permutation(len(records))[:_MAX_IMAGES]
    originals, worse = [], []
    for index in order:
        try:
            image = decode.decode_image(records.read(int(index)))
        except (decode.BadImageError, OSError):
            continue
        originals.append(prepare(image))
        worse.append(prepare(worse_copy(image)))
    if not originals:
        return {"distance": 0.0, "pixel_distance": 0.0}
    pair = np.stack(originals), np.stack(worse)
    return {
        name: _quantile(*map(fn, pair))
        for name, fn in (("distance", embed), ("pixel_distance", pixels))
    }


def worse_copy(image: np.ndarray) -> np.ndarray:
    """Returns an image `[H, W, 3]` uint8, smaller and compressed."""
    height, width = (max(1, round(side * _SCALE)) for side in image.shape[:2])
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    quality = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    ok, encoded = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), quality)
    if not ok:
        raise ValueError(f"OpenCV could not encode an image of shape {small.shape}.")
    return decode.decode_image(encoded.tobytes())


def _quantile(originals: np.ndarray, worse: np.ndarray) -> float:
    squares = np.sum(np.square(np.subtract(originals, worse, dtype=np.float64)), axis=1)
    return float(np.quantile(squares, SHARE))
