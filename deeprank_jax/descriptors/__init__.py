"""Hand-made image descriptors, in NumPy: what a learned embedding must beat.

Each is a function of images `[N, H, W, 3]` uint8 that returns `[N, D]` float32, made
so that the squared Euclidean distance of two rows is how different the images are.
Those in `LEARNED` are fitted to images for training first, which returns the function.
"""

from collections.abc import Callable, Sequence
from concurrent import futures

import numpy as np
import threadpoolctl

from deeprank_jax.descriptors.fisher import fit_fisher
from deeprank_jax.descriptors.hog import hog
from deeprank_jax.descriptors.lab_histogram import lab_histogram
from deeprank_jax.descriptors.lbp import lbp
from deeprank_jax.descriptors.pixels import pixels
from deeprank_jax.descriptors.sift_words import fit_sift_words
from deeprank_jax.descriptors.texton_pyramid import fit_texton_pyramid
from deeprank_jax.descriptors.wavelet import wavelet

__all__ = [
    "DESCRIPTORS",
    "LEARNED",
    "VERSIONS",
    "Describe",
    "check_names",
    "compute",
    "describe_shared",
    "fit_fisher",
    "fit_sift_words",
    "fit_texton_pyramid",
    "hog",
    "lab_histogram",
    "lbp",
    "pixels",
    "wavelet",
]

Describe = Callable[[np.ndarray], np.ndarray]

DESCRIPTORS: dict[str, Describe] = {
    "hog": hog,
    "lab_histogram": lab_histogram,
    "lbp": lbp,
    "pixels": pixels,
    "wavelet": wavelet,
}

# Each is `fit(images, *, seed=0, workers=1, progress=iter)`, and pickles what it
# returns.
LEARNED: dict[str, Callable[..., Describe]] = {
    "fisher": fit_fisher,
    "sift_words": fit_sift_words,
    "texton_pyramid": fit_texton_pyramid,
}

# To be raised when a descriptor gives other numbers, so that kept ones are not used.
VERSIONS: dict[str, int] = {
    "fisher": 2,
    "hog": 1,
    "lab_histogram": 1,
    "lbp": 1,
    "pixels": 1,
    "sift_words": 2,
    "texton_pyramid": 2,
    "wavelet": 1,
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
    return {
        name: describe_shared(DESCRIPTORS[name], images, workers=workers)
        for name in names
    }


def describe_shared(
    describe: Describe, images: np.ndarray, *, workers: int = 1
) -> np.ndarray:
    """Returns what one descriptor says of images, `[N, D]` float32.

    Args:
      describe: of `DESCRIPTORS`, or what a function of `LEARNED` returned.
      images: `[N, H, W, 3]` uint8, `N` may be 0.
      workers: threads that share the images; the rows do not depend on how many.

    Raises:
      ValueError: the images are not what the descriptor takes.
    """
    pieces = np.array_split(images, max(1, min(workers, len(images))))
    pool = futures.ThreadPoolExecutor(len(pieces))
    # Else BLAS's threads and these would fight for the cores. Descriptors ask for it
    # themselves, but only the first thread to do so is heard.
    with threadpoolctl.threadpool_limits(1), pool:
        return np.concatenate(list(pool.map(describe, pieces)))
