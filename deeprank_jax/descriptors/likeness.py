"""Likeness of two images in their details, block by block.

Two drawings on white, or two pages of text, differ in few pixels; in the blocks that
they differ in, their contrasts have nothing in common.
"""

from collections.abc import Callable
import functools

import cv2
import numpy as np

# Smallest likeness of copies. Of 400 images (pages, lines of text, drawings, icons,
# charts, wide pictures, photographs and emoji) no two were above .56; copies of half
# the size and JPEG quality 60 were above .6 in 99 of 100 cases.
MIN_LIKENESS = 0.6
# Pixels compared, and blocks per side.
_MAX_AREA, _BLOCKS = 128 * 128, 8
_MAX_SKETCH_AREA = 256 * 256
# Contrast below which blocks count as equal: noise of compression.
_NOISE = 128.0


def sketch(image: np.ndarray) -> np.ndarray:
    """Returns an image in grey, `[h, w]` uint8, of at most 256 x 256 pixels in area.

    Args:
      image: `[H, W, 3]` uint8.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    scale = min(1.0, (_MAX_SKETCH_AREA / grey.size) ** 0.5)
    height, width = (max(1, round(side * scale)) for side in grey.shape)
    return cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA)


def common_size(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, int]:
    """Returns the height and width at which two sketches are compared.

    Args:
      one: Height and width of a sketch.
      other: Height and width of the other.
    """
    height, width = min(one[0], other[0]), min(one[1], other[1])
    scale = min(1.0, (_MAX_AREA / (height * width)) ** 0.5)
    return _round(height * scale), _round(width * scale)


def contrast(grey: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Returns the differences from the surroundings, `[64, P]` float32 by blocks.

    Args:
      grey: `[h, w]` uint8, sketch of an image.
      size: Height and width to compare at.
    """
    height, width = size
    resized = cv2.resize(
        grey.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA
    )
    around = (max(3, width // _BLOCKS + 1), max(3, height // _BLOCKS + 1))
    detail = resized - cv2.blur(resized, around)
    blocks = detail.reshape(_BLOCKS, height // _BLOCKS, _BLOCKS, width // _BLOCKS)
    return blocks.swapaxes(1, 2).reshape(_BLOCKS * _BLOCKS, -1)


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Returns the likeness of the block that differs most, in [-1, 1].

    Args:
      one: Contrast of an image.
      other: Contrast of the other, at the same size.
    """
    energy = np.mean(np.square(one) + np.square(other), axis=1)
    product = 2.0 * np.mean(one * other, axis=1)
    return float(np.min((product + _NOISE) / (energy + _NOISE)))


class Comparer:
    """Compares many pairs of sketches; the last ones are kept prepared by size."""

    def __init__(self, sketch_of: Callable[[int], np.ndarray]):
        """Begins without sketches.

        Args:
          sketch_of: Function from an image's index to its sketch.
        """
        self._sketch_of = sketch_of
        self._contrast = functools.lru_cache(2048)(
            lambda index, size: contrast(sketch_of(index), size)
        )

    def is_copy(self, one: int, other: int) -> bool:
        """Returns True if two images are alike in all their details.

        Args:
          one: Index of an image.
          other: Index of the other.
        """
        size = common_size(self._sketch_of(one).shape, self._sketch_of(other).shape)
        pair = self._contrast(one, size), self._contrast(other, size)
        return likeness(*pair) >= MIN_LIKENESS


def _round(side: float) -> int:
    return max(1, int(side) // _BLOCKS) * _BLOCKS
