"""Hand-made image descriptors, in NumPy: what a learned embedding must beat.

Each is a function of images `[N, H, W, 3]` uint8 that returns `[N, D]` float32, made
so that the squared Euclidean distance of two rows is how different the images are.
"""

from collections.abc import Callable, Sequence
from concurrent import futures

import numpy as np

from deeprank_jax.descriptors.hog import hog
from deeprank_jax.descriptors.lab_histogram import lab_histogram
from deeprank_jax.descriptors.lbp import lbp
from deeprank_jax.descriptors.pixels import pixels
from deeprank_jax.descriptors.wavelet import wavelet

__all__ = [
    "DESCRIPTORS",
    "check_names",
    "compute",
    "hog",
    "lab_histogram",
    "lbp",
    "pixels",
    "wavelet",
]

DESCRIPTORS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "hog": hog,
    "lab_histogram": lab_histogram,
    "lbp": lbp,
    "pixels": pixels,
    "wavelet": wavelet,
}


def check_names(names: Sequence[str]) -> None:
    """Checks that every name is a key of `DESCRIPTORS`.

    Raises:
      ValueError: one is not.
    """
    for name in names:
        if name not in DESCRIPTORS:
            raise ValueError(
                f"No descriptor is named {name!r}; there are {sorted(DESCRIPTORS)}."
            )


def compute(
    names: Sequence[str], images: np.ndarray, *, workers: int = 1
) -> dict[str, np.ndarray]:
    """Returns descriptors of images by name, `[N, D]` float32 each.

    Args:
      names: keys of `DESCRIPTORS`.
      images: `[N, H, W, 3]` uint8, `N` may be 0.
      workers: threads that share the images; they let go of Python's lock for most of
        the work.

    Raises:
      ValueError: there is no such descriptor, or the images are not what it takes.
    """
    check_names(names)
    pieces = np.array_split(images, max(1, min(workers, len(images))))
    with futures.ThreadPoolExecutor(len(pieces)) as pool:
        return {
            name: np.concatenate(list(pool.map(DESCRIPTORS[name], pieces)))
            for name in names
        }
