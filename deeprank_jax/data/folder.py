"""What does a folder of images hold? `DIR/coarse/.../fine/image.jpg`.

Convention: the folder that holds an image is its class, the folders above it, up to
but without `DIR`, its coarser levels.
"""

from collections.abc import Iterator
import os
import pathlib

from absl import logging
import numpy as np

from deeprank_jax.data import errors, files
from deeprank_jax.data import records as records_lib

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")


def create_records(directory: str) -> dict[str, records_lib.Records]:
    """Lists a folder's images and splits them by class.

    Hidden files and folders are left out; files with other extensions too, and
    counted in the log.

    Args:
      directory: the folder.

    Returns:
      The records of each split, in the order of their paths.

    Raises:
      DataError: the folder is missing, unreadable or empty, its images lie at
        different depths, or they are too few to split.
    """
    root = pathlib.Path(directory).expanduser()
    if not root.is_dir():
        raise errors.DataError(
            f"{root}: there is no such folder; set config.data.dir to a folder with "
            "one folder of images per class."
        )
    images, num_ignored = [], 0
    for path in _walk(str(root), ()):
        if path[-1].lower().endswith(EXTENSIONS):
            images.append(path)
        else:
            num_ignored += 1
    if num_ignored:
        logging.info(
            "%s: ignored %s files that do not end in %s.",
            root,
            f"{num_ignored:,}",
            " ".join(EXTENSIONS),
        )
    if not images:
        raise errors.DataError(
            f"{root}: holds no image; it needs one folder per class with files that "
            f"end in {' '.join(EXTENSIONS)}."
        )
    depth = _common_depth(root, images)
    columns = [np.array([path[level] for path in images]) for level in range(depth)]
    return files.create_records(
        "folder", root, [os.path.join(*path) for path in images], columns
    )


def _walk(
    directory: str, parts: tuple[str, ...], above: tuple[str, ...] = ()
) -> Iterator[tuple[str, ...]]:
    """Yields the parts of every file's path, in order."""
    real = os.path.realpath(directory)
    if real in above:
        raise errors.DataError(
            f"{directory}: is a link to a folder that it lies in; remove it."
        )
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except OSError as error:
        raise errors.DataError(
            f"{directory}: cannot be read ({error.strerror}); give yourself the right "
            "to read it, or move it away."
        ) from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(entry.path, (*parts, entry.name), (*above, real))
        else:
            yield (*parts, entry.name)


def _common_depth(root: pathlib.Path, images: list[tuple[str, ...]]) -> int:
    """Returns the number of levels, the same for all images."""
    first = images[0]
    other = next((path for path in images if len(path) != len(first)), None)
    if other is not None:
        one, two = (root.joinpath(*path[:-1]) for path in (first, other))
        raise errors.DataError(
            f"{one} and {two}: both hold images, but {len(first) - 1} and "
            f"{len(other) - 1} folders below {root}; every image must lie at the same "
            "depth."
        )
    if len(first) == 1:
        raise errors.DataError(
            f"{root / first[0]}: lies in no class folder; move the images into one "
            f"folder per class below {root}."
        )
    return len(first) - 1
