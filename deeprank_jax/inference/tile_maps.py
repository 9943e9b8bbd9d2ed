"""Maps of an image by the similarity of its tiles to the tile at a place."""

import dataclasses
import os

import ml_collections
import numpy as np

from deeprank_jax import errors, files
from deeprank_jax.data import SOURCES
from deeprank_jax.data.decode import BadImageError
from deeprank_jax.data.large_images import LargeImages
from deeprank_jax.data.tiling import TileGrid, create_tile_records
from deeprank_jax.inference import bulk
from deeprank_jax.progress import Progress

# Largest height and width of the image behind the map.
_OVERVIEW_SIDE = 1200
# Memory for decoded pixels, in MiB.
_CACHE_MIB = 256.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class TileMap:
    """Similarity of the tiles of an image to one of them.

    Attributes:
      size: Height and width of the image in pixels.
      query: Left and top of the tile that the others are compared with.
      grid: Size and distance of the tiles.
      tops: `[R]` ints, first row of pixels of each row of tiles.
      lefts: `[C]` ints, first column of pixels of each column of tiles.
      similarities: `[R, C]` float32, cosine to the embedding of the query; NaN for a
        tile that cannot be read.
      overview: `[h, w, 3]` uint8, the image, shrunk.
    """

    size: tuple[int, int]
    query: tuple[int, int]
    grid: TileGrid
    tops: np.ndarray
    lefts: np.ndarray
    similarities: np.ndarray
    overview: np.ndarray

    def most_similar(self, num: int) -> list[tuple[int, int, float]]:
        """Returns left, top and similarity of the tiles most similar to the query.

        Those that share pixels with the query, or with a more similar tile of the
        list, are left out.

        Args:
          num: Largest number of tiles.
        """
        tile, corners = self.grid.tile, [self.query]
        tiles = []
        order = np.argsort(-self.similarities, axis=None, kind="stable")
        for row, column in zip(
            *np.unravel_index(order, self.similarities.shape), strict=True
        ):
            similarity = float(self.similarities[row, column])
            if len(tiles) == num or np.isnan(similarity):  # NaN is last.
                break
            x, y = int(self.lefts[column]), int(self.tops[row])
            if all(max(abs(x - u), abs(y - v)) >= tile for u, v in corners):
                corners.append((x, y))
                tiles.append((x, y, similarity))
        return tiles


def map_tiles(
    model: bulk.Embedder,
    path: str | os.PathLike[str],
    at: tuple[int, int],
    *,
    tile: int,
    stride: int | None = None,
    level: int = 0,
    progress: Progress | None = None,
) -> TileMap:
    """Compares the tiles of an image with the tile at a place.

    Args:
      model: Model that embeds.
      path: Path of the image.
      at: Column and row of the place, in pixels of the level from the upper left
        corner; the tile is centred there, or moved into the image.
      tile: Side of a tile in pixels.
      stride: Distance of neighbouring tiles; None for the side of a tile.
      level: Level of a TIFF pyramid.
      progress: Function that receives the progress; None for a bar.

    Raises:
      DataError: The image cannot be read, is smaller than a tile or lacks the level,
        or the place is outside.
      ValueError: A number is out of its range.
    """
    grid = TileGrid(tile=tile, stride=tile if stride is None else stride)
    images = LargeImages([os.fspath(path)], level=level, cache_mib=_CACHE_MIB)
    size, overview = _look_at(path, images, at, tile)
    x, y = (
        int(np.clip(place - tile // 2, 0, side - tile))
        for place, side in zip(at, size[::-1], strict=True)
    )
    # The query comes first, as it need not be on the grid.
    places = np.concatenate(
        [np.array([[0, y, x]], np.int32), grid.places({0: size}, {0: (0, size[1])})]
    )
    records = create_tile_records(
        files.printable(path), [os.fspath(path)], images, places, tile
    )
    embeddings, indices = bulk.embed_records(model, records, progress=progress)
    if indices[0] != 0:
        raise errors.DataError(
            f"{records.describe(0)}: cannot be read; give another place."
        )
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit = embeddings / np.where(norms > 0, norms, 1)
    similarities = np.full(len(places), np.nan, np.float32)
    similarities[indices] = unit @ unit[0]
    tops, lefts = np.unique(places[1:, 1]), np.unique(places[1:, 2])
    return TileMap(
        size=size,
        query=(x, y),
        grid=grid,
        tops=tops,
        lefts=lefts,
        similarities=similarities[1:].reshape(len(tops), len(lefts)),
        overview=overview,
    )


def _look_at(
    path: str | os.PathLike[str], images: LargeImages, at: tuple[int, int], tile: int
) -> tuple[tuple[int, int], np.ndarray]:
    """Returns size and overview of the image, after a check of the place."""
    try:
        size = images.size(0)
        _check_place(path, size, at, tile)
        return size, images.overview(0, _OVERVIEW_SIDE)
    except BadImageError as error:
        raise errors.DataError(f"{files.printable(path)}: {error}.") from error
    except OSError as error:
        raise errors.DataError(
            f"{files.printable(path)}: cannot be read ({error.strerror or error}); "
            "give the path of an image."
        ) from error


def trained_tiles(data: ml_collections.ConfigDict) -> dict[str, int]:
    """Returns `tile` and `level` of the tiles that a model was trained on.

    Of a model that was trained on other images, a tile is as large as its input.

    Args:
      data: `config.data` of the model.
    """
    if data.source.name == "tiles":
        options = SOURCES.options("tiles") | data.source.to_dict()
        return {"tile": options["tile"], "level": options["level"]}
    return {"tile": data.image_size, "level": 0}


def _check_place(
    path: str | os.PathLike[str],
    size: tuple[int, int],
    at: tuple[int, int],
    tile: int,
) -> None:
    height, width = size
    if min(size) < tile:
        raise errors.DataError(
            f"{files.printable(path)}: has {width:,} x {height:,} pixels, too few for "
            f"a tile of {tile} x {tile}; give a smaller --tile."
        )
    x, y = at
    if not (0 <= x < width and 0 <= y < height):
        raise errors.DataError(
            f"{files.printable(path)}: the place {x},{y} is outside of its {width:,} x "
            f"{height:,} pixels; give --at a column from 0 to {width - 1} and a row "
            f"from 0 to {height - 1}."
        )
