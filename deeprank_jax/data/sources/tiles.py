"""Source "tiles": squares of large images, e.g. of slides in digital pathology.

Convention: splits share no pixel. Either the left part of each image trains, and its
other parts validate and test, or whole images do.
"""

from collections.abc import Iterator, Sequence
import math
import os
import pathlib

from absl import logging
import numpy as np

from deeprank_jax import errors, files, logs
from deeprank_jax.data import decode
from deeprank_jax.data.hash_assignment import assign_by_hash
from deeprank_jax.data.large_images import LargeImages
from deeprank_jax.data.records import Records
from deeprank_jax.data.sources.folder import list_distinct_images
from deeprank_jax.data.splits import DEFAULT_SHARES, Shares, digest
from deeprank_jax.data.tiling import TileGrid, create_tile_records
from deeprank_jax.files import as_text
from deeprank_jax.progress import Bar

_SPLITS_BY = ("region", "image")
_SAME_IMAGES = (
    "Validation and test are other parts of the images of training; of new images the "
    'metrics say nothing: measure it by config.data.source.split_by="image".'
)


def create_records(
    directory: str,
    *,
    tile: int = 64,
    stride: int | None = None,
    level: int = 0,
    split_by: str = "region",
    test_share: float = DEFAULT_SHARES.test_share,
    validation_share: float = DEFAULT_SHARES.validation_share,
    min_contrast: float = 0.0,
    cache_mib: float = 256.0,
) -> dict[str, Records]:
    """Lists the tiles of the images below a folder; their pixels are read later.

    Args:
      directory: Folder of images, in folders of any names and depths, or in none.
      tile: Side of a tile in pixels.
      stride: Distance of neighbouring tiles in pixels; None for the side of a tile,
        which is also the least in validation and test, so that tiles overlap in
        training only.
      level: Level of TIFF pyramids that is read; 0 is the full size.
      split_by: `"region"`: of each image the left part trains, the middle validates and
        the right part tests, a tile apart; or `"image"`.
      test_share: Share of an image's width, or of the images, that is kept for testing;
        0 for none.
      validation_share: Share of the width or the images that selects the checkpoint.
      min_contrast: Least standard deviation of a tile's grey values, from 0 to 127.5;
        others are left out as blank. Above 0 every tile is read once.
      cache_mib: Memory for decoded images, or parts of TIFFs, in MiB.

    Returns:
      The tiles of each split by image, row and column, with the image as label, and
      `row` and `column` of their centres among the columns.

    Raises:
      ValueError: An option is out of its range.
      DataError: The folder has no image that can be read, one is smaller than a tile or
        too narrow to be split, or lacks the level; or all tiles are blank.
    """
    shares = Shares(test_share, validation_share)
    grid = TileGrid(tile=tile, stride=tile if stride is None else stride)
    _check_options(split_by, min_contrast)
    root = pathlib.Path(directory).expanduser()
    paths = list_distinct_images(root)
    full_paths = [os.path.join(root, path) for path in paths]
    images = LargeImages(full_paths, level=level, cache_mib=cache_mib)
    sizes = _read_sizes(root, paths, images)
    _check_sizes(root, paths, sizes, tile)
    _warn_of_small_cache(root, sizes, images, cache_mib)
    records = {}
    for split, columns in _split(root, paths, sizes, grid, split_by, shares).items():
        name, is_train = f"tiles/{split}", split == "train"
        # Tiles of training alone may overlap.
        places = (grid if is_train else grid.without_overlap()).places(sizes, columns)
        places = _without_blank(name, places, images, tile, min_contrast)
        caveat = _SAME_IMAGES if split_by == "region" and not is_train else ""
        records[split] = create_tile_records(
            name, paths, images, places, tile, caveat=caveat
        )
    return records


def _check_options(split_by: str, min_contrast: float) -> None:
    if split_by not in _SPLITS_BY:
        raise ValueError(f'split_by must be "region" or "image", got {split_by!r}.')
    if not 0 <= min_contrast <= 127.5:
        raise ValueError(f"min_contrast must be in [0, 127.5], got {min_contrast}.")


def _read_sizes(
    root: pathlib.Path, paths: Sequence[str], images: LargeImages
) -> dict[int, tuple[int, int]]:
    """Returns height and width of each image that can be read, by its number."""
    sizes, bad = {}, ""
    for number, path in enumerate(paths):
        try:
            sizes[number] = images.size(number)
            continue
        except decode.BadImageError as error:
            reason = str(error)
        except OSError as error:
            reason = f"cannot be read ({error.strerror or error})"
        bad = bad or f"; the first is {files.printable(path)}: {reason}"
        logging.warning("%s: %s; skipped.", files.printable(path), reason)
    if not sizes:
        num = f"none of its {logs.counted(len(paths), 'image')} can be read{bad}"
        raise errors.DataError(
            f"{files.printable(root)}: {num if paths else 'has no image'}; give a "
            "folder of images that are JPEG, PNG, WebP, AVIF, BMP, TIFF or GIF."
        )
    return sizes


def _check_sizes(
    root: pathlib.Path,
    paths: Sequence[str],
    sizes: dict[int, tuple[int, int]],
    tile: int,
) -> None:
    for number, (height, width) in sizes.items():
        if min(height, width) < tile:
            raise errors.DataError(
                f"{files.printable(root / paths[number])}: has {width:,} x {height:,} "
                f"pixels, too few for a tile of {tile} x {tile}; lower "
                "config.data.source.tile, or leave the image out."
            )


def _warn_of_small_cache(
    root: pathlib.Path,
    sizes: dict[int, tuple[int, int]],
    images: LargeImages,
    cache_mib: float,
) -> None:
    """Warns if images that are decoded whole do not fit into the cache together."""
    whole = [size for number, size in sizes.items() if images.is_decoded_whole(number)]
    mib = sum(3 * height * width for height, width in whole) / 2**20
    if mib > cache_mib:
        logging.warning(
            "%s: %s that are decoded whole take %.0f MiB, more than "
            "config.data.source.cache_mib=%g, so that most tiles cost the decoding of "
            "an image: raise it, or save the images as tiled TIFFs.",
            files.printable(root),
            logs.counted(len(whole), "image"),
            mib,
            cache_mib,
        )


def _split(
    root: pathlib.Path,
    paths: Sequence[str],
    sizes: dict[int, tuple[int, int]],
    grid: TileGrid,
    split_by: str,
    shares: Shares,
) -> dict[str, dict[int, tuple[int, int]]]:
    """Returns the columns of pixels `[start, stop)` of each split, by image."""
    if split_by == "region":
        parts = {
            number: _split_width(root / paths[number], width, grid, shares)
            for number, (_, width) in sizes.items()
        }
        return {
            split: {number: part[split] for number, part in parts.items()}
            for split in shares.splits
        }
    if len(sizes) < len(shares.splits):
        raise errors.DataError(
            f"{files.printable(root)}: has {logs.counted(len(sizes), 'image')} that "
            f"can be read, and {len(shares.splits)} splits need as many; add images, "
            'or choose config.data.source.split_by="region".'
        )
    digests = [digest(as_text(paths[number])) for number in sizes]
    names = assign_by_hash(digests, shares, least=1)
    return {
        split: {
            number: (0, width)
            for (number, (_, width)), name in zip(sizes.items(), names, strict=True)
            if name == split
        }
        for split in shares.splits
    }


def _split_width(
    path: pathlib.Path, width: int, grid: TileGrid, shares: Shares
) -> dict[str, tuple[int, int]]:
    """Returns the columns of pixels `[start, stop)` of each split, from the left.

    Between two splits lie the columns of one tile, which belong to neither.

    Raises:
      DataError: A split would get no tile.
    """
    evaluated = [split for split in shares.splits if split != "train"]
    usable = width - grid.tile * len(evaluated)
    share_of = {"validation": shares.validation_share, "test": shares.test_share}
    columns = {
        # Whole tiles, so that no pixels are lost at the cuts.
        split: max(1, round(usable * share_of[split] / grid.tile)) * grid.tile
        for split in evaluated
    }
    columns = {"train": usable - sum(columns.values()), **columns}
    if columns["train"] < grid.tile:
        raise errors.DataError(
            f"{files.printable(path)}: its {width:,} columns of pixels are too few "
            f"for {len(columns)} splits of tiles of {grid.tile} with a tile between; "
            "lower config.data.source.tile, choose "
            'config.data.source.split_by="image", or leave the image out.'
        )
    parts, start = {}, 0
    for split, num in columns.items():
        parts[split] = (start, start + num)
        start += num + grid.tile
    return parts


def _without_blank(
    name: str, places: np.ndarray, images: LargeImages, tile: int, min_contrast: float
) -> np.ndarray:
    """Returns the places of tiles with enough contrast; those that are bad stay in.

    Raises:
      DataError: No tile is left.
    """
    if not min_contrast:
        return places
    contrasts = np.fromiter(_contrasts(name, places, images, tile), float, len(places))
    has_enough = ~(contrasts < min_contrast)
    if not has_enough.any():
        raise errors.DataError(
            f"{name}: none of its {logs.counted(len(places), 'tile')} has a contrast "
            f"of config.data.source.min_contrast={min_contrast:g}, the largest is "
            f"{contrasts.max():.3g}; lower it, or give other images."
        )
    num_blank = int(np.sum(~has_enough))
    logging.info(
        "%s: left out %s of %s tiles, whose contrast is below %g.",
        name, f"{num_blank:,}", f"{len(places):,}", min_contrast,
    )  # fmt: skip
    return places[has_enough]


def _contrasts(
    name: str, places: np.ndarray, images: LargeImages, tile: int
) -> Iterator[float]:
    """Yields the standard deviation of each tile's grey values; NaN for a bad one."""
    for number, y, x in Bar(places.tolist(), desc=f"{name}, contrast", unit=" tiles"):
        try:
            pixels = images.read(number, y, x, tile, tile)
        except (decode.BadImageError, OSError):
            yield math.nan  # Reported when training reads it.
            continue
        yield float(pixels.mean(axis=2).std())
