"""Tiles of large images as records.

Convention: only whole tiles count. A tile's place is the row and column of its centre,
in pixels of the level that is read; its id is `PATH#xywh=LEFT,TOP,SIDE,SIDE`, a
fragment of the W3C's Media Fragments.
"""

from collections.abc import Mapping, Sequence
import dataclasses

import numpy as np

from deeprank_jax.data.large_images import LargeImages
from deeprank_jax.data.records import Records
from deeprank_jax.files import as_text


@dataclasses.dataclass(frozen=True, kw_only=True)
class TileGrid:
    """Size and distance of tiles.

    Attributes:
      tile: Side of a tile in pixels.
      stride: Distance of neighbouring tiles in pixels.
    """

    tile: int
    stride: int

    def __post_init__(self):
        """Checks both.

        Raises:
          ValueError: One is below 1 or no whole number.
        """
        for name in ("tile", "stride"):
            value = getattr(self, name)
            if value < 1 or value != int(value):
                raise ValueError(
                    f"{name} must be a whole number of pixels of at least 1, got "
                    f"{value}."
                )

    def without_overlap(self) -> "TileGrid":
        """Returns the grid whose tiles share no pixels."""
        return dataclasses.replace(self, stride=max(self.tile, self.stride))

    def starts(self, start: int, stop: int) -> np.ndarray:
        """Returns the first pixels of the tiles within `[start, stop)`."""
        return np.arange(start, stop - self.tile + 1, self.stride)

    def places(
        self,
        sizes: Mapping[int, tuple[int, int]],
        columns: Mapping[int, tuple[int, int]],
    ) -> np.ndarray:
        """Returns image, top and left of each tile, `[N, 3]` int32, row by row.

        Args:
          sizes: Height and width of each image by its number.
          columns: Columns of pixels `[start, stop)` that are cut into tiles, by the
            number of the image.
        """
        places = [np.zeros((0, 3), np.int32)]
        for number, (start, stop) in columns.items():
            tops = self.starts(0, sizes[number][0])
            lefts = self.starts(start, stop)
            grid = np.meshgrid(number, tops, lefts, indexing="ij")
            places.append(np.stack(grid, axis=-1).reshape(-1, 3).astype(np.int32))
        return np.concatenate(places)


def create_tile_records(
    name: str,
    paths: Sequence[str],
    images: LargeImages,
    places: np.ndarray,
    tile: int,
    *,
    caveat: str = "",
) -> Records:
    """Returns tiles as records, labelled by their image; pixels are read later.

    Args:
      name: Name of the records in messages.
      paths: Path of each image, as it is shown.
      images: Images that the tiles are read from.
      places: `[N, 3]` int32, image, top and left of each tile.
      tile: Side of a tile in pixels.
      caveat: Sentence on what metrics do not say.
    """

    def read(index: int) -> np.ndarray:
        number, y, x = places[index].tolist()
        return images.read(number, y, x, tile, tile)

    def describe(index: int) -> str:
        number, y, x = places[index].tolist()
        return f"{as_text(paths[number])}#xywh={x},{y},{tile},{tile}"

    return Records(
        name=name,
        labels=places[:, :1],
        level_names=("image",),
        label_names=(tuple(map(as_text, paths)),),
        read=read,
        describe=describe,
        columns={"row": places[:, 1] + tile // 2, "column": places[:, 2] + tile // 2},
        caveat=caveat,
    )
