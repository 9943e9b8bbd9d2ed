"""Exact nearest neighbours of queries in a gallery.

Distances are squared Euclidean. Equal distances rank in gallery order.
"""

from collections.abc import Iterator

import jax
import numpy as np

from deeprank_jax.search.exact import Block, ExactSearch

__all__ = [
    "Block",
    "ExactSearch",
    "nearest_neighbors",
    "neighbor_blocks",
]


def nearest_neighbors(
    queries: np.ndarray,
    gallery: np.ndarray,
    k: int,
    *,
    exclude_self: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds each query's `k` nearest gallery rows, exactly.

    Matrix products find the candidates, whose distances are then computed directly: a
    row's distance to itself is 0, and equal rows are equally far. The queries are
    split over this process's devices; the result does not depend on their number. For
    a large `k` use `neighbor_blocks`, which never holds the whole result.

    Args:
      queries: `[Q, D]` finite floats.
      gallery: `[G, D]` finite floats.
      k: Number of neighbours, from 1 to `G`, or to `G - 1` with `exclude_self`.
      exclude_self: True if query `i` is gallery row `i`, which is left out.

    Returns:
      Squared distances `[Q, k]` float32, ascending, and the gallery's row numbers
      `[Q, k]` int32. Equal distances rank in gallery order.

    Raises:
      ValueError: `k` is out of range, an embedding is not finite, or shapes differ.
    """
    blocks = neighbor_blocks(queries, gallery, k, exclude_self=exclude_self)
    distances = np.empty((len(queries), k), np.float32)
    indices = np.empty((len(queries), k), np.int32)
    for rows, block_distances, block_indices in blocks:
        distances[rows], indices[rows] = block_distances, block_indices
    return distances, indices


def neighbor_blocks(
    queries: np.ndarray,
    gallery: np.ndarray,
    k: int,
    *,
    exclude_self: bool = False,
) -> Iterator[Block]:
    """Finds neighbours as `nearest_neighbors` does, some queries at a time.

    Args:
      queries: `[Q, D]` finite floats.
      gallery: `[G, D]` finite floats.
      k: Number of neighbours, see `nearest_neighbors`.
      exclude_self: True if query `i` is gallery row `i`, which is left out.

    Returns:
      An iterator of a slice of the queries, in order, their squared distances `[B, k]`
      and the gallery's row numbers `[B, k]`; memory is that of a few blocks.

    Raises:
      ValueError: As `nearest_neighbors`, before the first block is computed.
    """
    queries, gallery = _checked("queries", queries), _checked("gallery", gallery)
    if queries.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"queries have {queries.shape[1]} dimensions, the gallery has "
            f"{gallery.shape[1]}: both must come from the same model."
        )
    if exclude_self and len(queries) != len(gallery):
        raise ValueError(
            "exclude_self needs query i to be gallery row i, but there are "
            f"{len(queries)} queries and {len(gallery)} gallery rows."
        )
    num_candidates = len(gallery) - exclude_self
    if not 1 <= k <= num_candidates:
        raise ValueError(
            f"k={k} nearest of {num_candidates} candidates: k must be from 1 to "
            f"{num_candidates}."
        )
    devices = jax.local_devices()
    search = ExactSearch([gallery], *gallery.shape, devices=devices)
    if exclude_self:
        return _without_self(search.blocks(queries, k + 1))
    return search.blocks(queries, k)


def _checked(name: str, embeddings: np.ndarray) -> np.ndarray:
    embeddings = np.asarray(embeddings, np.float32)
    if embeddings.ndim != 2 or not embeddings.size:
        raise ValueError(
            f"{name} must be [N, D] with at least one row, got {embeddings.shape}."
        )
    bad = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
    if len(bad):
        raise ValueError(
            f"{len(bad)} of {len(embeddings)} {name} are not finite, the first is "
            f"row {bad[0]}: leave them out, or look for the step at which "
            "training diverged."
        )
    return embeddings


def _without_self(blocks: Iterator[Block]) -> Iterator[Block]:
    """Removes each query from its neighbours, or else the last of them."""
    for part, distances, rows in blocks:
        num, k = rows.shape
        is_self = rows == np.arange(part.start, part.stop)[:, None]
        removed = np.where(is_self.any(axis=1), is_self.argmax(axis=1), k - 1)
        remaining = np.arange(k) != removed[:, None]
        yield (
            part,
            distances[remaining].reshape(num, -1),
            rows[remaining].reshape(num, -1),
        )
