"""Comparison of the details of images that a model finds near."""

import numpy as np

from deeprank_jax.data import decode
from deeprank_jax.data.records import Records
from deeprank_jax.descriptors import likeness


class DetailCheck:
    """Verdicts on pairs of images, each of which is decoded once more if needed."""

    def __init__(self, records: Records, indices: np.ndarray, max_pixels: int):
        """Begins without images.

        Args:
          records: Images.
          indices: `[M]` indices in `records` of the images to compare.
          max_pixels: Largest number of pixels of an image.
        """
        self._records, self._indices, self._max_pixels = records, indices, max_pixels
        self._unreadable: set[int] = set()
        self._sketches: dict[int, np.ndarray] = {}
        self._comparer = likeness.Comparer(self._sketches)

    def __call__(self, one: int, other: int) -> bool:
        """Returns True if two images are alike in their details.

        Args:
          one: Place of an image in `indices`.
          other: Place of the other.
        """
        for place in (one, other):
            if place not in self._sketches and place not in self._unreadable:
                self._read(place)
        if one in self._unreadable or other in self._unreadable:
            return False
        return self._comparer.is_copy(one, other)

    def _read(self, place: int) -> None:
        try:
            data = self._records.read(int(self._indices[place]))
            image = decode.decode_image(data, max_pixels=self._max_pixels)
        except (decode.BadImageError, OSError):  # It was readable a moment ago.
            self._unreadable.add(place)
            return
        self._sketches[place] = likeness.sketch(image)
