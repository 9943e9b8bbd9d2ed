"""Picture of the similarity of an image's tiles to one of them."""

import os
import pathlib

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
import numpy as np

from deeprank_jax import files
from deeprank_jax.inference.tile_maps import TileMap

# Inches of the longer side, and those for title and colour bar.
_LONGER, _MARGIN = 7.0, 1.3
_DPI, _OPACITY, _INK = 120, 0.6, "#222222"


def write_picture(path: str | os.PathLike[str], tile_map: TileMap, title: str) -> None:
    """Draws the similarities over the image, with a frame around the query.

    Each colour covers the middle of its tile, as far as the next tile.

    Args:
      path: Path of the picture, .png.
      tile_map: Similarities of the tiles.
      title: Title of the picture.
    """
    height, width = tile_map.size
    scale = _LONGER / max(height, width)
    figure = Figure(
        figsize=(max(width * scale, 2.5) + _MARGIN, max(height * scale, 2.0) + 0.7),
        layout="constrained",
        dpi=_DPI,
    )
    axes = figure.add_subplot()
    grey = tile_map.overview.mean(axis=2)
    axes.imshow(grey, cmap="gray", vmin=0, vmax=255, extent=(0, width, height, 0))
    colors = axes.imshow(
        np.ma.masked_invalid(tile_map.similarities),
        cmap="viridis",
        alpha=_OPACITY,
        interpolation="nearest",
        extent=_extent(tile_map),
    )
    tile = tile_map.grid.tile
    for color, line in ("white", 3.5), (_INK, 1.5):
        axes.add_patch(
            Rectangle(
                tile_map.query, tile, tile, fill=False, color=color, linewidth=line
            )
        )
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_title(title, fontsize=10, color=_INK, parse_math=False)
    axes.tick_params(labelsize=8)
    bar = figure.colorbar(colors, ax=axes, fraction=0.046, pad=0.02)
    bar.set_label("cosine to the framed tile", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    path = pathlib.Path(path)
    files.create_folder(path.parent)
    with files.replacing(path) as file:
        FigureCanvasAgg(figure).print_png(file)


def _extent(tile_map: TileMap) -> tuple[float, float, float, float]:
    """Returns left, right, bottom and top of the colours, in pixels."""
    margin = (tile_map.grid.tile - tile_map.grid.stride) / 2
    x, y = float(tile_map.lefts[0] + margin), float(tile_map.tops[0] + margin)
    width = len(tile_map.lefts) * tile_map.grid.stride
    height = len(tile_map.tops) * tile_map.grid.stride
    return x, x + width, y + height, y
