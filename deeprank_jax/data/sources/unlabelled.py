"""Source "unlabelled": the images of a folder and of all folders in it, without labels.

Convention: each image is a class of its own. Validation and test hold it twice, as it
is and changed: cropped, and maybe mirrored, in other colours or grey. The metrics then
say how well an image is found again by a changed copy, not which images are similar.
"""

from collections.abc import Callable, Sequence
import os
import pathlib

import numpy as np

from deeprank_jax import errors, files, logs
from deeprank_jax.data import decode
from deeprank_jax.data.hash_assignment import assign_by_hash
from deeprank_jax.data.records import Records
from deeprank_jax.data.sources.folder import list_distinct_images
from deeprank_jax.data.splits import DEFAULT_SHARES, Shares, digest
from deeprank_jax.files import as_text

# Augmentation of the changed copies.
_CHANGES = {"crop_area": 0.3, "flip": True, "color_jitter": 0.4, "grayscale": 0.2}
_CAVEAT = (
    "Validation and test ask for an image by a changed copy of it. A network that is "
    "better at this may be worse at finding similar images: measure it, and the "
    "network before training, on images with labels, by `deeprank evaluate`."
)
# In a split of one image any copy would be the nearest.
_LEAST_IMAGES = 2


def create_records(
    directory: str,
    *,
    test_share: float = DEFAULT_SHARES.test_share,
    validation_share: float = DEFAULT_SHARES.validation_share,
) -> dict[str, Records]:
    """Lists the images below a folder and splits them by the hashes of their paths.

    Args:
      directory: Folder of images, in folders of any names and depths, or in none.
      test_share: Share of the images that are kept for testing; 0 for none.
      validation_share: Share of the images that select the checkpoint.

    Returns:
      The records of each split, in the order of their paths; those of validation and
      test come in pairs, an image and its changed copy.

    Raises:
      ValueError: A share is out of its range.
      DataError: The folder is missing, unreadable or empty, or has too few images.
    """
    shares = Shares(test_share, validation_share)
    root = pathlib.Path(directory).expanduser()
    paths = list_distinct_images(root)
    least = _LEAST_IMAGES * len(shares.splits)
    if len(paths) < least:
        raise errors.DataError(
            f"{files.printable(root)}: has {logs.counted(len(paths), 'image')}, and "
            f"{len(shares.splits)} splits of {_LEAST_IMAGES} images need {least}; add "
            "images."
        )
    digests = [digest(as_text(path)) for path in paths]
    splits = assign_by_hash(digests, shares, _LEAST_IMAGES)
    records = {}
    for split in shares.splits:
        rows = np.flatnonzero(splits == split)
        records[split] = _create_split(
            f"unlabelled/{split}", root, paths, digests, rows, doubled=split != "train"
        )
    return records


def _create_split(
    name: str,
    root: pathlib.Path,
    paths: Sequence[str],
    digests: Sequence[bytes],
    rows: np.ndarray,
    *,
    doubled: bool,
) -> Records:
    """Returns the records of a split.

    Args:
      name: Name of the records.
      root: Folder that the paths start from.
      paths: Paths of all images.
      digests: Hash of each path, which decides how its copy is changed.
      rows: `[M]` ints, images of the split.
      doubled: True for each image followed by its changed copy.
    """
    num_copies = 2 if doubled else 1
    row_of: Callable[[int], int] = lambda index: int(rows[index // num_copies])

    def read(index: int) -> bytes | np.ndarray:
        row = row_of(index)
        data = files.read_bytes(root / paths[row], decode.MAX_BYTES)
        return data if index % num_copies == 0 else _change(data, digests[row])

    def describe(index: int) -> str:
        changed = " (changed)" if index % num_copies else ""
        return as_text(paths[row_of(index)]) + changed

    return Records(
        name=name,
        labels=np.repeat(rows, num_copies).astype(np.int32)[:, None],
        level_names=("image",),
        label_names=(tuple(map(as_text, paths)),),
        read=read,
        describe=describe,
        path=lambda index: os.path.join(root, paths[row_of(index)]),
        caveat=_CAVEAT if doubled else "",
    )


def _change(data: bytes, path_digest: bytes) -> bytes | np.ndarray:
    """Returns the changed copy of an image, always the same; a bad image as it is."""
    try:
        image = decode.decode_image(data)
    except decode.BadImageError:
        return data
    from deeprank_jax.data.augment import augment_views  # It needs OpenCV.

    rng = np.random.default_rng(list(path_digest))
    return augment_views(image[None, None], rng, **_CHANGES)[0, 0]
