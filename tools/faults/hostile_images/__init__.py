"""Files that bear the name of an image and were made to harm their reader.

Each kind takes time or memory without limit from a reader that believes it, or is a
thing that is no file. None holds an image that should be used.
"""

from collections.abc import Mapping
import os
import pathlib

import numpy as np

from tools.faults.hostile_images import jpeg_png, other_formats, things
from tools.faults.hostile_images.kinds import KINDS, Make

__all__ = ["KINDS", "Make", "hostile_files", "jpeg_png", "other_formats", "things"]


def hostile_files(
    folder: str | os.PathLike[str], seed: int = 0
) -> Mapping[str, pathlib.Path]:
    """Writes one file of each kind into a folder, and returns their paths by name.

    Args:
      folder: Folder to write to; created if it does not exist.
      seed: Seed of the sizes and places that vary.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for number, (name, make) in enumerate(KINDS.items()):
        paths[name] = folder / file_name(name)
        make(paths[name], np.random.default_rng([seed, number]))
    return paths


def file_name(kind: str) -> str:
    """Returns the name of a kind's file, with the suffix of its format."""
    form = kind.partition("_")[0]
    known = form in ("png", "gif", "webp", "bmp", "tif")
    return f"{kind}.{form if known else 'jpg'}"
