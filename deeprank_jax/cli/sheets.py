"""Pictures of results: contact sheets of images with their labels and distances."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import functools
import os
import pathlib
from typing import IO, TYPE_CHECKING, Any

from absl import logging
import numpy as np

from deeprank_jax import files
from deeprank_jax.cli import output
from deeprank_jax.data.records import Records
from deeprank_jax.inference.images import AnyImage, decode, prepare
from deeprank_jax.inference.label_errors import LabelError
from deeprank_jax.inference.results import Comparison, ImageGroups, SearchResult

if TYPE_CHECKING:
    from deeprank_jax.inference.model import Model
    from deeprank_jax.report.contact_sheet import Group, Tile

# Sheets with more groups or images are no longer looked at.
_MAX_GROUPS, _MAX_TILES = 60, 24
MAX_RANKED = 96
# Hits with heat maps; with the query a model embeds them together.
_MAX_MAPPED = 7
# Side of an image under a heat map, in pixels, and least fall of the cosine that has
# the full colour: noise must not look like a find.
_MAP_SIZE, _LEAST_FALL = 224, 0.05

# Function from an image's path to its path, bytes or pixels.
Read = Callable[[str], AnyImage]


def write_pair(
    out: str,
    images: Sequence[str],
    comparison: Comparison,
    heat_map_model: "Model | None" = None,
) -> None:
    """Writes two images with the verdict about them.

    Args:
      out: Path of the picture.
      images: Paths of the two images.
      comparison: Comparison of the two.
      heat_map_model: Model whose heat maps are drawn below; None for none.
    """
    from deeprank_jax.report.contact_sheet import LARGE, Group

    verdict = {True: "similar", False: "not similar", None: ""}
    frame = verdict[comparison.is_similar]
    unread: list[str] = []
    tiles = [_tile(_read(image, image, unread), image, frame=frame) for image in images]
    groups = [Group(heading=str(comparison), tiles=tiles)]
    if heat_map_model is not None:
        groups += _heat_map_groups(heat_map_model, tiles[0], tiles[1:])
    _write(out, "Two images compared", groups, unread, size=LARGE)


def write_hits(
    out: str,
    title: str,
    image: str,
    result: SearchResult,
    *,
    heading: str,
    read: Read,
    heat_map_model: "Model | None" = None,
) -> None:
    """Writes a query and its nearest images.

    Args:
      out: Path of the picture.
      title: Title of the picture.
      image: Path of the query.
      result: Hits, of which the first `MAX_RANKED` are shown.
      heading: Heading of the hits, with `{legend}` for the meaning of the frames.
      read: Reader of the hits' images.
      heat_map_model: Model whose heat maps are drawn below; None for none.
    """
    from deeprank_jax.report.contact_sheet import Group

    near, legend = result.threshold, ""
    if near is not None:
        legend = f", framed green within {near:.4f} and red beyond"
    if result.is_unfamiliar:
        legend = " (the query is unlike all images of training: no verdict)"
    frames = {True: "near", False: "far", None: ""}
    unread: list[str] = []
    tiles = [
        _tile(
            _read(lambda path=hit.path: read(path), hit.path, unread),
            hit.path,
            hit.label,
            f"{hit.distance:.4f}",
            frame=frames[hit.is_similar],
        )
        for hit in result.hits[:MAX_RANKED]
    ]
    opened = _read(image, image, unread)
    query = Group(heading="query", tiles=[_tile(opened, image, frame="query")])
    hits = Group(heading=heading.replace("{legend}", legend), tiles=tiles)
    groups = [query, hits]
    if heat_map_model is not None:
        groups += _heat_map_groups(heat_map_model, query.tiles[0], tiles)
    _write(out, title, groups, unread)


def write_groups(out: str, title: str, groups: ImageGroups, read: Read) -> None:
    """Writes groups of images, the first of them if there are many.

    Args:
      out: Path of the picture.
      title: Title of the picture.
      groups: Groups of images.
      read: Reader of the images.
    """
    from deeprank_jax.report.contact_sheet import Group

    sheet = []
    unread: list[str] = []
    for number, group in enumerate(groups.groups[:_MAX_GROUPS], 1):
        texts = [f"{distance:.4f}" for distance in group.distances]
        texts = ["keep", *texts[1:]] if texts else [""] * len(group)
        members = zip(group.paths[:_MAX_TILES], group.labels, texts, strict=False)
        tiles = [
            _tile(_read(lambda path=path: read(path), path, unread), path, label, text)
            for path, label, text in members
        ]
        heading = f"{number}: {count(_MAX_TILES, len(group), 'images')}"
        sheet.append(Group(heading=heading, tiles=tiles))
    if len(groups) > _MAX_GROUPS:
        title += f" ({_MAX_GROUPS} shown)"
    _write(out, title, sheet, unread)


def write_label_errors(
    out: str, title: str, images: Sequence[LabelError], read: Read
) -> None:
    """Writes probable label errors, each beside its nearest images.

    Args:
      out: Path of the picture.
      title: Title of the picture.
      images: Images to show, the surest errors first.
      read: Reader of the images.
    """
    from deeprank_jax.report.contact_sheet import Group

    sheet = []
    unread: list[str] = []
    for number, image in enumerate(images, 1):
        tiles = [
            _tile(
                _read(lambda path=path: read(path), path, unread),
                path,
                label,
                text,
                frame=frame,
            )
            for path, label, text, frame in (
                (image.path, image.label, "", "query"),
                (image.nearest_path, image.nearest_label, "nearest", ""),
                (image.same_path, image.label, "same label", ""),
            )
        ]
        heading = f"{number}: margin {image.margin:.3f}"
        sheet.append(Group(heading=heading, tiles=tiles))
    _write(out, title, sheet, unread)


def _heat_map_groups(
    model: "Model", query: "Tile", tiles: "Sequence[Tile]"
) -> "list[Group]":
    """Returns the query beside each of the first others, as two groups of heat maps.

    Args:
      model: Model by which the images are similar.
      query: Tile of the query.
      tiles: Tiles of the others; one whose image cannot be read is left out.
    """
    from deeprank_jax.inference.similarity_maps import find_maps
    from deeprank_jax.report.contact_sheet import Group

    tiles = [query, *tiles[:_MAX_MAPPED]]
    ranks = [
        i for i, tile in enumerate(tiles) if _can_be_seen(tile, model.preprocessing)
    ]
    if len(ranks) < 2 or ranks[0]:
        logging.warning("No heat maps: there are not two images that can be read.")
        return []
    ranks = ranks[1:]
    maps = find_maps(model, query.image, [tiles[i].image for i in ranks])
    largest = max(_LEAST_FALL, *(np.abs([x.one, x.other]).max() for x in maps))
    draw = functools.partial(_heat_map_tile, model.preprocessing, largest)
    first, second = [], []
    for rank, pair in zip(ranks, maps, strict=True):
        cosine = f"cosine {pair.cosine:.2f}"
        beside = [f"beside {rank}", cosine] if len(ranks) > 1 else tiles[0].lines[:1]
        number = f"{rank}: " if len(ranks) > 1 else ""
        first.append(draw(query, pair.one, beside))
        second.append(draw(tiles[rank], pair.other, [number + tiles[rank].lines[0]]))
    legend = (
        "hiding orange lowers the cosine of the embeddings, hiding blue raises it (by "
        f"{largest:.2f} at full colour)"
    )
    if len(maps) == 1:
        return [Group(heading=f"where they are alike: {legend}", tiles=first + second)]
    return [
        Group(heading=f"where the query is like each; {legend}", tiles=first),
        Group(heading="where each is like the query", tiles=second),
    ]


def _can_be_seen(tile: "Tile", preprocessing: Mapping[str, Any]) -> bool:
    """Returns whether the network can see the image of a tile."""
    if tile.is_missing:
        return False
    try:
        prepare(tile.image, files.printable(tile.title), preprocessing)
    except ValueError as error:
        logging.warning("Without a heat map: %s", error)
        return False
    return True


def _heat_map_tile(
    preprocessing: Mapping[str, Any],
    largest: float,
    tile: "Tile",
    values: np.ndarray,
    lines: Sequence[str],
) -> "Tile":
    """Returns a tile with a heat map over the part of its image that the network sees.

    Args:
      preprocessing: Preprocessing of the model.
      largest: Value with the full colour.
      tile: Tile of the image.
      values: `[S, S]` floats, the heat map.
      lines: Lines below the image.
    """
    from deeprank_jax.report.heat_map import draw_heat_map

    framed = prepare(tile.image, tile.title, preprocessing, _MAP_SIZE)
    image = draw_heat_map(framed, values, largest)
    return dataclasses.replace(tile, image=image, lines=lines, frame="")


def write_csv(out: str, names: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Writes a table as CSV.

    Args:
      out: Path of the file.
      names: Names of the columns.
      rows: Cells of each row.
    """
    with _replacing(out) as file:
        file.write(output.format_csv(names, rows))


def create_reader(records: Records) -> Read:
    """Returns the reader of records by their paths; those with a file are read from it.

    Args:
      records: Records of the images.
    """
    indices = {records.describe(i): i for i in range(len(records))}
    file = records.path
    if file is None:
        return lambda path: records.read(indices[path])
    # Absolute, as a name that begins with "~" is not the home folder of a user.
    return lambda path: os.path.abspath(file(indices[path]))


def count(shown: int, num: int, noun: str) -> str:
    """Returns e.g. `"120 images, 96 shown"`."""
    return f"{num:,} {noun}" + (f", {shown} shown" if num > shown else "")


def _write(
    out: str,
    title: str,
    groups: "Sequence[Group]",
    unread: Sequence[str],
    **layout: int,
) -> None:
    from deeprank_jax.report.contact_sheet import write_sheet

    if unread:
        logging.warning(
            "%s: %s images cannot be shown and are grey, the first is %s",
            files.printable(out),
            f"{len(unread):,}",
            unread[0],
        )
    with _replacing(out) as file:
        path = pathlib.Path(out)
        write_sheet(file, path.suffix, title, groups, folder=path.parent, **layout)


@contextlib.contextmanager
def _replacing(path: str) -> Iterator[IO[bytes]]:
    """Opens a file that appears at its path only when it is complete."""
    files.create_folder(pathlib.Path(path).parent)
    with files.replacing(path) as file:
        yield file


def _read(
    image: str | Callable[[], AnyImage], name: str, unread: list[str]
) -> tuple[np.ndarray | None, str]:
    """Returns an image's pixels, and the path of its file, "" if it has none.

    One that cannot be read is None without a file, and a reason more.
    """
    try:
        opened = image() if callable(image) else image
        file = os.path.expanduser(opened) if isinstance(opened, str) else ""
        return decode(opened, ""), file
    except (ValueError, OSError) as error:
        unread.append(f"{files.printable(name)}: {str(error).removeprefix(': ')}")
        return None, ""


def _tile(
    image: tuple[np.ndarray | None, str],
    path: str,
    label: str = "",
    distance: str = "",
    *,
    frame: str = "",
) -> "Tile":
    """Returns the tile of an image, with its label and distance below.

    An image that cannot be read is a grey square.
    """
    from deeprank_jax.report.contact_sheet import Tile

    lines = [label or pathlib.PurePath(path).name]
    pixels, file = image
    return Tile(
        image=np.full((8, 8, 3), 200, np.uint8) if pixels is None else pixels,
        file=file,
        is_missing=pixels is None,
        lines=[*lines, distance] if distance else lines,
        title=path,
        frame=frame,
    )
