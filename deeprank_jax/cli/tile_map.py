"""Compares all tiles of a large image with the tile at a place, and draws a map.

For example:
  deeprank tile-map slide.tif --model=model --at=1200,800 --out=map.png
"""

import argparse
import pathlib
from typing import TYPE_CHECKING

from deeprank_jax import files
from deeprank_jax.cli import arguments
from deeprank_jax.cli.output import Result, format_table, wrote

if TYPE_CHECKING:
    from deeprank_jax.inference.tile_maps import TileMap

_COLUMNS = ("rank", "cosine", "at", "distance")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "image", metavar="IMAGE", type=arguments.PATH, help="path of an image"
    )
    arguments.add_model(parser)
    parser.add_argument(
        "--at", metavar="X,Y", type=_place, required=True,
        help="column and row of the place in pixels, from the upper left corner",
    )  # fmt: skip
    parser.add_argument(
        "--tile", metavar="PIXELS", type=arguments.at_least(1),
        help="side of a tile; by default that of the model's training tiles, or its "
        "input",
    )  # fmt: skip
    parser.add_argument(
        "--stride", metavar="PIXELS", type=arguments.at_least(1),
        help="distance of neighbouring tiles; by default the side of a tile, less "
        "makes a finer map",
    )  # fmt: skip
    parser.add_argument(
        "--level", metavar="LEVEL", type=arguments.at_least(0),
        help="level of a TIFF pyramid, 0 for the full size; by default that of the "
        "model's training tiles",
    )  # fmt: skip
    parser.add_argument(
        "--num", metavar="NUM", type=arguments.at_least(1), default=5,
        help="largest number of similar tiles that are printed",
    )  # fmt: skip
    parser.add_argument(
        "--out", metavar="FILE", type=arguments.PATH, help="picture of the map, .png"
    )


def check(options: argparse.Namespace) -> None:
    """Checks the paths."""
    arguments.check_model(options.model)
    arguments.check_out(options.out, (".png",), [options.image])


def run(options: argparse.Namespace) -> Result:
    """Compares the tiles."""
    from deeprank_jax.inference import tile_maps
    from deeprank_jax.inference.model import Model

    model = Model(options.model)
    trained = tile_maps.trained_tiles(model.data_config)
    tile = options.tile or trained["tile"]
    level = trained["level"] if options.level is None else options.level
    tile_map = tile_maps.map_tiles(
        model, options.image, options.at, tile=tile, stride=options.stride, level=level
    )
    x, y = _centre(tile_map, *tile_map.query)
    rows = []
    for rank, (*corner, similarity) in enumerate(tile_map.most_similar(options.num), 1):
        column, row = _centre(tile_map, *corner)
        distance = ((column - x) ** 2 + (row - y) ** 2) ** 0.5
        rows.append((rank, f"{similarity:.4f}", f"{column},{row}", f"{distance:.0f}"))
    num_tiles = tile_map.similarities.size
    lines = [
        format_table(_COLUMNS, rows),
        f"Compared {num_tiles:,} tiles of {tile} x {tile} pixels with that at {x},{y}; "
        "those listed share no pixels with it or with each other.",
    ]
    if options.out is not None:
        from deeprank_jax.report import tile_map_picture

        name = files.printable(pathlib.Path(options.image).name)
        title = f"Tiles of {name} like that at {x},{y}"
        tile_map_picture.write_picture(options.out, tile_map, title)
        lines.append(wrote(options.out))
    return Result(_values(tile_map, options, level), "\n".join(lines))


def _place(text: str) -> tuple[int, int]:
    """Parses a column and a row."""
    x, y = (int(part) for part in text.split(","))
    return x, y


_place.__name__ = "place X,Y"  # Named so in argparse's message.


def _centre(tile_map: "TileMap", left: int, top: int) -> tuple[int, int]:
    half = tile_map.grid.tile // 2
    return left + half, top + half


def _values(
    tile_map: "TileMap", options: argparse.Namespace, level: int
) -> dict[str, object]:
    """Returns the map as values for `--json`."""
    return {
        "image": options.image,
        "at": _centre(tile_map, *tile_map.query),
        "tile": tile_map.grid.tile,
        "stride": tile_map.grid.stride,
        "level": level,
        "most_similar": [
            {"at": _centre(tile_map, *corner), "cosine": similarity}
            for *corner, similarity in tile_map.most_similar(options.num)
        ],
        "lefts": tile_map.lefts,
        "tops": tile_map.tops,
        "cosines": tile_map.similarities,
    }
