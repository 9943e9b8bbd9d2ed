"""Interface of image descriptors.

Convention: descriptors are `[N, D]` float32 rows, one per image, whose squared
Euclidean distances measure dissimilarity.
"""

from collections.abc import Callable, Iterable
import dataclasses
from typing import Protocol

import numpy as np

# From images `[N, H, W, 3]` uint8 to descriptors `[N, D]` float32.
Describe = Callable[[np.ndarray], np.ndarray]
# Wrapper of an iterable in a progress bar.
Progress = Callable[[Iterable], Iterable]


class Descriptor(Protocol):
    """A kind of descriptor, hand-made or learned from images."""

    @property
    def title(self) -> str:
        """Returns a noun phrase for tables and lists."""
        ...

    @property
    def version(self) -> int:
        """Returns a number that is raised when the values change.

        Cached descriptors of other versions are computed again.
        """
        ...

    @property
    def is_learned(self) -> bool:
        """Returns whether `fit` depends on the images."""
        ...

    def fit(
        self,
        images: np.ndarray,
        *,
        seed: int = 0,
        workers: int = 1,
        progress: Progress = iter,
    ) -> Describe:
        """Returns the function that describes images, which can be pickled.

        Args:
          images: `[M, H, W, 3]` uint8, training images; unused if hand-made.
          seed: Seed of the random draws.
          workers: Number of threads; the result does not depend on it.
          progress: Wrapper of the training images in a progress bar.
        """
        ...


@dataclasses.dataclass(frozen=True)
class HandMade:
    """A descriptor without parameters to learn.

    Attributes:
      describe: Function from images to descriptors.
      title: Noun phrase for tables and lists.
      version: Number to raise when the values change.
    """

    describe: Describe
    title: str
    version: int = 1

    @property
    def is_learned(self) -> bool:
        """Returns False."""
        return False

    def fit(self, images: np.ndarray, **options: object) -> Describe:
        """Returns `describe`, whatever the images."""
        return self.describe


def hand_made(
    describe: Describe, title: str = "", version: int = 1
) -> Callable[[], HandMade]:
    """Returns the kind of a plain function, for the registry.

    Args:
      describe: Function from images to descriptors.
      title: Noun phrase for tables and lists; empty for the function's name.
      version: Number to raise when the values change.
    """
    title = title or getattr(describe, "__name__", "").replace("_", " ")
    return lambda: HandMade(describe, title, version)
