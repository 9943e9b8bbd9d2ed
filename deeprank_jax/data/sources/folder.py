"""Source "folder": images laid out as `DIR/coarse/.../fine/image.jpg`.

Convention: the folder that holds an image is its class; the folders above it, below
`DIR`, are its coarser levels.
"""

from collections.abc import Iterator
import errno
import os
import pathlib

from absl import logging
import numpy as np

from deeprank_jax import errors, files, logs
from deeprank_jax.data.real_paths import RealPaths
from deeprank_jax.data.records import Records
from deeprank_jax.data.sources import labelled_files
from deeprank_jax.data.splits import DEFAULT_SHARES, Shares

EXTENSIONS = (
    ".jpg", ".jpeg", ".png", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".gif",
)  # fmt: skip
# Images in formats that are not read.
_OTHER_IMAGES = (
    ".heic",
    ".heif",
    ".jxl",
    ".jp2",
    ".svg",
    ".psd",
    ".dng",
    ".cr2",
    ".nef",
)


def create_records(
    directory: str,
    *,
    split_by: str = "class",
    test_share: float = DEFAULT_SHARES.test_share,
    validation_share: float = DEFAULT_SHARES.validation_share,
) -> dict[str, Records]:
    """Lists a folder's images and splits them.

    Args:
      directory: Folder of images; see `list_images` for the files that count.
      split_by: `"class"`, or `"image"` for classes that all splits share.
      test_share: Share of the classes that are kept for testing; 0 for none.
      validation_share: Share of the classes that select the checkpoint.

    Returns:
      The records of each split, in the order of their paths.

    Raises:
      ValueError: A share is out of its range, or there is no such `split_by`.
      DataError: The folder is missing, unreadable or empty, its images lie at
        different depths, or they are too few to split.
    """
    shares = Shares(test_share, validation_share)
    root = pathlib.Path(directory).expanduser()
    images = list_images(root)
    if not images:
        raise errors.DataError(
            f"{files.printable(root)}: contains no image; it needs one folder per "
            f"class with files that end in {' '.join(EXTENSIONS)}."
        )
    depth = _common_depth(root, images)
    columns = [np.array([path[level] for path in images]) for level in range(depth)]
    return labelled_files.create_records(
        "folder",
        root,
        [os.path.join(*path) for path in images],
        columns,
        level_titles=_level_titles(depth),
        split_by=split_by,
        shares=shares,
    )


def _level_titles(depth: int) -> tuple[str, ...]:
    """Returns the titles of the levels of folders, from the outermost."""
    outer = [f"level-{level + 1} folder" for level in range(depth - 1)]
    if depth == 2:
        outer = ["outer folder"]
    return (*outer, "folder")


def list_images(root: pathlib.Path) -> list[tuple[str, ...]]:
    """Returns the parts of each image's path below a folder, in order.

    Hidden files and folders are ignored. Files with other extensions are ignored too,
    and their number is logged, with a warning if they are images; so are links to a
    folder above them.

    Args:
      root: Folder of images.

    Raises:
      DataError: The folder is missing or unreadable.
    """
    try:
        is_folder = root.is_dir()
    except OSError as error:
        raise _unreadable(root, error) from error
    if not is_folder:
        raise errors.DataError(
            f"{files.printable(root)}: there is no such folder; give a folder of "
            "images."
        )
    images, other_images, num_ignored = [], [], 0
    loops: list[str] = []
    for path in _walk(str(root), (), loops):
        if path[-1].lower().endswith(EXTENSIONS):
            images.append(path)
        elif path[-1].lower().endswith(_OTHER_IMAGES):
            other_images.append(path)
        else:
            num_ignored += 1
    if loops:
        logging.warning(
            "%s: left out %s to a folder that contains the link, e.g. %s; what is in "
            "the folder is used already.",
            files.printable(root),
            logs.counted(len(loops), "link"),
            files.printable(os.path.relpath(loops[0], root)),
        )
    if other_images:
        logging.warning(
            "%s: left out %s in a format that is not read, e.g. %s; convert to JPEG or "
            "PNG, e.g. by `magick IMAGE IMAGE.jpg`.",
            files.printable(root),
            logs.counted(len(other_images), "image"),
            files.printable(os.path.join(*other_images[0])),
        )
    if num_ignored:
        logging.info(
            "%s: ignored %s with an ending other than %s.",
            files.printable(root),
            logs.counted(num_ignored, "file"),
            " ".join(EXTENSIONS),
        )
    return images


def list_distinct_images(root: pathlib.Path) -> list[str]:
    """Returns the relative paths of the images below a folder, each file once.

    Args:
      root: Folder of images; see `list_images` for the files that count.

    Raises:
      DataError: The folder is missing or unreadable.
    """
    real_paths = RealPaths()
    path_of: dict[str, str] = {}
    for parts in list_images(root):
        path = os.path.join(*parts)
        path_of.setdefault(real_paths.of(os.path.join(root, path)), path)
    return [*path_of.values()]


def _walk(
    directory: str,
    parts: tuple[str, ...],
    loops: list[str],
    above: tuple[str, ...] = (),
) -> Iterator[tuple[str, ...]]:
    """Yields the parts of every file's path, in order.

    Args:
      directory: Folder to list.
      parts: Parts of its path below the root.
      loops: List to which links to a folder above them are added.
      above: Real paths of the folders above.
    """
    real = os.path.realpath(directory)
    if real in above:
        loops.append(directory)
        return
    for name, is_folder in _list(directory):
        if is_folder:
            path = os.path.join(directory, name)
            yield from _walk(path, (*parts, name), loops, (*above, real))
        else:
            yield (*parts, name)


def _list(directory: str) -> list[tuple[str, bool]]:
    """Returns name and `is_folder` of each entry that is not hidden, in order."""
    listed = []
    path = directory
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                path = entry.path
                if not entry.name.startswith("."):
                    listed.append((entry.name, _is_folder(entry)))
                path = directory
    except OSError as error:
        raise _unreadable(path, error) from error
    return sorted(listed)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        # A link to nowhere: no folder, and skipped by its name when it is read.
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENAMETOOLONG):
            return False
        raise


def _unreadable(path: str | os.PathLike[str], error: OSError) -> errors.DataError:
    return errors.DataError(
        f"{files.printable(path)}: cannot be read ({error.strerror or error}); grant "
        "read permission, or move it away."
    )


def _common_depth(root: pathlib.Path, images: list[tuple[str, ...]]) -> int:
    """Returns the number of levels, the same for all images."""
    first = images[0]
    other = next((path for path in images if len(path) != len(first)), None)
    if other is not None:
        one, two, top = (
            files.printable(folder)
            for folder in (root.joinpath(*first[:-1]), root.joinpath(*other[:-1]), root)
        )
        raise errors.DataError(
            f"{one} and {two}: both contain images, but {len(first) - 1} and "
            f"{len(other) - 1} folders below {top}; move all images to the same depth."
        )
    if len(first) == 1:
        raise errors.DataError(
            f"{files.printable(root / first[0])}: is not in a class folder; move the "
            f"images into one folder per class below {files.printable(root)}, search "
            "without training, by --model=efficientnet_lite0, or train without "
            "classes, by --config=unlabelled."
        )
    return len(first) - 1
