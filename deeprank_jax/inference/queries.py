"""The image that a search begins with: its own file among the hits."""

from collections.abc import Sequence
import os

import numpy as np

from deeprank_jax.data.real_paths import RealPaths
from deeprank_jax.inference.images import AnyImage


def find_query(image: AnyImage, paths: Sequence[str]) -> np.ndarray:
    """Returns `[N]` bool, True for the paths that name the query's own file.

    Args:
      image: Query; only a path can be found.
      paths: Paths of `N` images, by other spellings or by links, too.
    """
    if not isinstance(image, (str, os.PathLike)):
        return np.zeros(len(paths), bool)
    real_paths = RealPaths()
    real = os.path.realpath(os.path.expanduser(image))
    return np.array([real_paths.of(path) == real for path in paths], bool)
