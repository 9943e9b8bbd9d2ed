"""Classical image descriptors, in NumPy: the baselines of a learned embedding."""

from collections.abc import Sequence
from concurrent import futures

import numpy as np

from deeprank_jax.errors import needs_extra

with needs_extra("search"):
    import cv2  # noqa: F401
    import threadpoolctl

from deeprank_jax.descriptors.base import Describe, Descriptor, hand_made
from deeprank_jax.descriptors.fisher import FisherLearner
from deeprank_jax.descriptors.hog import hog
from deeprank_jax.descriptors.lab_histogram import lab_histogram
from deeprank_jax.descriptors.lbp import lbp
from deeprank_jax.descriptors.pixels import pixels
from deeprank_jax.descriptors.sift_words import SiftWordsLearner
from deeprank_jax.descriptors.texton_pyramid import TextonPyramidLearner
from deeprank_jax.descriptors.wavelet import wavelet
from deeprank_jax.errors import ConfigError
from deeprank_jax.registry import Registry

__all__ = [
    "DESCRIPTORS",
    "Describe",
    "Descriptor",
    "compute",
    "create_descriptor",
    "describe_in_threads",
    "hand_made_names",
    "hog",
    "lab_histogram",
    "lbp",
    "pixels",
    "register_descriptor",
    "wavelet",
]

DESCRIPTORS: Registry[Descriptor] = Registry(
    "descriptors",
    {
        "fisher": FisherLearner,
        "hog": hand_made(hog, "histograms of oriented gradients"),
        "lab_histogram": hand_made(lab_histogram, "histogram of LAB colours"),
        "lbp": hand_made(lbp, "local binary patterns"),
        "pixels": hand_made(pixels, "pixels of a 16 x 16 copy"),
        "sift_words": SiftWordsLearner,
        "texton_pyramid": TextonPyramidLearner,
        "wavelet": hand_made(wavelet, "signs of the largest wavelet coefficients"),
    },
    methods=("fit",),
    from_function=hand_made,
    by_key=True,
)
register_descriptor = DESCRIPTORS.register


def create_descriptor(name: str) -> Descriptor:
    """Creates a descriptor with its default options.

    Args:
      name: Key of `DESCRIPTORS`.

    Raises:
      ConfigError: There is no such descriptor.
    """
    return DESCRIPTORS.create({"name": name})


def hand_made_names() -> list[str]:
    """Returns the names of the descriptors that are not learned, in order."""
    return [
        name for name in sorted(DESCRIPTORS) if not create_descriptor(name).is_learned
    ]


def compute(
    names: Sequence[str], images: np.ndarray, *, workers: int = 1
) -> dict[str, np.ndarray]:
    """Computes hand-made descriptors of images.

    Args:
      names: Names of hand-made descriptors.
      images: `[N, H, W, 3]` uint8, images to describe; `N` may be 0.
      workers: Number of threads that share the images.

    Returns:
      `[N, D]` float32 by name.

    Raises:
      ConfigError: There is no such descriptor, or it is learned.
      DataError: The images are too small.
      ValueError: The images have another shape or type.
    """
    functions = {}
    for name in names:
        descriptor = create_descriptor(name)
        if descriptor.is_learned:
            raise ConfigError(
                f"The descriptor {name!r} is learned from images; choose hand-made "
                f"ones: {', '.join(hand_made_names())}."
            )
        functions[name] = descriptor.fit(images)
    return {
        name: describe_in_threads(describe, images, workers=workers)
        for name, describe in functions.items()
    }


def describe_in_threads(
    describe: Describe, images: np.ndarray, *, workers: int = 1
) -> np.ndarray:
    """Returns the descriptors of images, `[N, D]` float32.

    Args:
      describe: Function that `Descriptor.fit` returned.
      images: `[N, H, W, 3]` uint8, images to describe; `N` may be 0.
      workers: Number of threads that share the images; the rows do not depend on it.

    Raises:
      DataError: The images are too small.
      ValueError: The images have another shape or type.
    """
    pieces = np.array_split(images, max(1, min(workers, len(images))))
    pool = futures.ThreadPoolExecutor(len(pieces))
    # BLAS's threads would compete with these for the cores. Descriptors set the limit
    # themselves, but it is global, and only the first thread's call takes effect.
    with threadpoolctl.threadpool_limits(1), pool:
        return np.concatenate(list(pool.map(describe, pieces)))
