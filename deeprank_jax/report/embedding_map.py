"""The embedding in two dimensions, drawn with thumbnails that do not overlap."""

from collections.abc import Callable
import dataclasses

import numpy as np

from deeprank_jax.errors import needs_extra
from deeprank_jax.report.thumbnails import resize_thumbnails

_SIZE = 1600
_CELL = 34
# Largest distance of a record's cell from its place; beyond it a record is left out.
_MAX_MOVE = 3.0
# Largest number of records that are laid out exactly.
_MAX_EXACT = 200


@dataclasses.dataclass(frozen=True)
class EmbeddingMap:
    """A picture and the places of the records on it.

    Attributes:
      image: `[1600, 1600, 4]` uint8 RGBA, transparent where there is no record.
      indices: `[P]` int, indices of the records on it.
      corners: `[P, 2]` left and top of each, as a share of the picture.
      size: Width and height of a thumbnail, as a share of the picture.
    """

    image: np.ndarray
    indices: np.ndarray
    corners: np.ndarray
    size: float


def create_map(
    embeddings: np.ndarray,
    indices: np.ndarray,
    thumbnails: Callable[[np.ndarray], np.ndarray],
    *,
    max_records: int = 1000,
    seed: int = 0,
) -> EmbeddingMap | None:
    """Lays out records by t-SNE and puts each into the nearest free cell of a grid.

    Args:
      embeddings: `[N, D]` float, one row per record of the split.
      indices: `[M]` int, indices of the records that may be shown.
      thumbnails: Function from record indices `[n]` to uint8 `[n, S, S, 3]`.
      max_records: Maximal number of records; if there are more, a random part is shown.
      seed: Seed of that choice and of t-SNE.

    Returns:
      The map, or None for fewer than 5 records, which have no shape to see.
    """
    if len(indices) < 5:
        return None
    indices = np.random.default_rng(seed).permutation(indices)[:max_records]
    cells, has_cell = _snap(_layout(embeddings[indices], seed))
    indices = indices[has_cell]
    pitch = _SIZE // (_SIZE // _CELL)
    tile = pitch - 2
    image = np.zeros((_SIZE, _SIZE, 4), np.uint8)
    corners = cells[has_cell] * pitch + 1
    pictures = resize_thumbnails(thumbnails(indices), tile)
    for (x, y), picture in zip(corners, pictures, strict=True):
        image[y : y + tile, x : x + tile, :3] = picture
        image[y : y + tile, x : x + tile, 3] = 255
    return EmbeddingMap(image, indices, corners / _SIZE, tile / _SIZE)


def _layout(embeddings: np.ndarray, seed: int) -> np.ndarray:
    """Returns places `[M, 2]` in [0, 1]."""
    with needs_extra("train"):
        from sklearn import manifold
    embeddings = embeddings.astype(np.float64)
    spread = np.ptp(embeddings, axis=0).max()
    if spread == 0 or embeddings.shape[1] < 2:
        # t-SNE cannot start from a single place or a line.
        places = np.stack([embeddings[:, 0], np.zeros(len(embeddings))], axis=1)
    else:
        places = manifold.TSNE(
            perplexity=min(30.0, (len(embeddings) - 1) / 3),
            init="pca",
            random_state=seed,
            max_iter=400,
            # The approximation takes a fifth of the time for a thousand records, but
            # longer for a few dozen, by seconds on a busy machine.
            method="exact" if len(embeddings) <= _MAX_EXACT else "barnes_hut",
            n_jobs=1,  # Faster for so few, and the same on every machine.
        ).fit_transform(embeddings / spread)
    low, high = places.min(axis=0), places.max(axis=0)
    return (places - low) / np.where(high > low, high - low, 1.0)


def _snap(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the cell `[M, 2]` of each place, and `[M]` bool, True if it has one."""
    side = _SIZE // _CELL
    free = np.ones((side, side), bool)
    axis = np.arange(side)
    cells, has_cell = np.zeros((len(places), 2), int), np.zeros(len(places), bool)
    for i, (x, y) in enumerate(places * (side - 1)):
        moves = np.hypot(axis[:, None] - x, axis[None] - y)
        moves[~free] = np.inf
        cell = np.unravel_index(np.argmin(moves), moves.shape)
        if moves[cell] <= _MAX_MOVE:
            free[cell] = False
            cells[i], has_cell[i] = cell, True
    return cells, has_cell
