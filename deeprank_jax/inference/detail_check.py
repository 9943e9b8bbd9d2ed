"""Comparison of the details of images that a model finds near."""

import functools

import numpy as np

from deeprank_jax.data import decode
from deeprank_jax.data.records import Records
from deeprank_jax.descriptors import likeness

# Number of sketches in memory, each of about 64 KiB at most.
_MAX_SKETCHES = 8192


class DetailCheck:
    """Verdicts on pairs of images, which are decoded once more as they are needed."""

    def __init__(self, records: Records, indices: np.ndarray, max_pixels: int):
        """Begins without images.

        Args:
          records: Images.
          indices: `[M]` indices in `records` of the images to compare.
          max_pixels: Largest number of pixels of an image.
        """
        self._records, self._indices, self._max_pixels = records, indices, max_pixels
        self._sketch = functools.lru_cache(_MAX_SKETCHES)(self._read)
        self._comparer = likeness.Comparer(self._sketch)

    def __call__(self, one: int, other: int) -> bool:
        """Returns True if two images are alike in their details.

        Args:
          one: Place of an image in `indices`.
          other: Place of the other.
        """
        try:
            return self._comparer.is_copy(one, other)
        except (decode.BadImageError, OSError):  # It was readable a moment ago.
            return False

    def _read(self, place: int) -> np.ndarray:
        data = self._records.read(int(self._indices[place]))
        image = decode.decode_image(data, max_pixels=self._max_pixels)
        return likeness.sketch(image)
