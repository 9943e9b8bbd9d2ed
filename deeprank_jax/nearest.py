"""Which records lie nearest, and how early in a ranking the wanted ones come.

Distances are squared Euclidean. Equal distances rank in gallery order.
"""

from collections.abc import Iterator
import functools

import jax
import jax.numpy as jnp
import numpy as np

# Candidates beyond k that are measured again, so that rounding in the matrix product
# does not decide which of two nearly equal distances is among the k.
_SPARE = 8
# float32 values that one block may hold: 256 MiB.
_BLOCK_VALUES = 2**26

# Which queries, their distances and their neighbours.
Block = tuple[slice, np.ndarray, np.ndarray]


def nearest_neighbors(
    queries: np.ndarray,
    gallery: np.ndarray,
    k: int,
    *,
    exclude_self: bool = False,
    block_size: int = 1024,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds each query's `k` nearest gallery rows, exactly.

    A matrix product finds the candidates, whose distances are then measured directly:
    a row's distance to itself is 0, and equal rows are equally far.

    Args:
      queries: `[Q, D]` finite floats.
      gallery: `[G, D]` finite floats.
      k: how many neighbours, from 1 to `G`, or to `G - 1` with `exclude_self`.
      exclude_self: query `i` is gallery row `i`, which is not its own neighbour.
      block_size: queries compared at a time, fewer if the gallery is large. Memory
        beyond the result is that of one block; for a large `k` take
        `neighbor_blocks`, which never holds the whole result.

    Returns:
      Squared distances `[Q, k]` float32, ascending, and the gallery's row numbers
      `[Q, k]` int32. Equal distances rank in gallery order.

    Raises:
      ValueError: `k` is out of range, an embedding is not finite, or shapes differ.
    """
    blocks = neighbor_blocks(
        queries, gallery, k, exclude_self=exclude_self, block_size=block_size
    )
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
    block_size: int = 1024,
) -> Iterator[Block]:
    """Finds neighbours as `nearest_neighbors` does, some queries at a time.

    Args:
      queries: as of `nearest_neighbors`, and so on.
      gallery: as of `nearest_neighbors`.
      k: as of `nearest_neighbors`.
      exclude_self: as of `nearest_neighbors`.
      block_size: as of `nearest_neighbors`; memory is that of one block, whatever `Q`
        and `k` are.

    Returns:
      An iterator of which queries, in order, their squared distances `[B, k]` and the
      gallery's row numbers `[B, k]`, both read-only.

    Raises:
      ValueError: as `nearest_neighbors`, before the first block is asked for.
    """
    queries, gallery = _checked("queries", queries), _checked("gallery", gallery)
    if queries.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"queries have {queries.shape[1]} dimensions, the gallery has "
            f"{gallery.shape[1]}: both must come from the same model."
        )
    if exclude_self and len(queries) != len(gallery):
        raise ValueError(
            f"exclude_self says that query i is gallery row i, but there are "
            f"{len(queries)} queries and {len(gallery)} gallery rows."
        )
    num_candidates = len(gallery) - exclude_self
    if not 1 <= k <= num_candidates:
        raise ValueError(
            f"k={k} nearest of {num_candidates} candidates: k must be from 1 to "
            f"{num_candidates}."
        )
    return _search(queries, gallery, k, exclude_self, block_size)


def average_precision(hits: np.ndarray, num_relevant: np.ndarray) -> np.ndarray:
    r"""Returns the average precision at R of each ranking.

    .. math::
      AP@R = \frac{1}{R} \sum_{i=1}^{R} P@i \cdot hit_i

    Args:
      hits: `[Q, K]` bool, whether the i-th nearest is relevant; `K` at least the
        largest `num_relevant`.
      num_relevant: `[Q]` ints, R: how many relevant records the gallery holds.

    Returns:
      `[Q]` float64 in `[0, 1]`; 0 where nothing is relevant.

    References:
      Musgrave et al., A Metric Learning Reality Check, 2020,
      https://arxiv.org/abs/2003.08505.
    """
    ranks = np.arange(1, hits.shape[1] + 1)
    counted = hits & (ranks <= num_relevant[:, None])
    precision = np.cumsum(hits, axis=1) / ranks
    return (precision * counted).sum(axis=1) / np.maximum(num_relevant, 1)


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


def _search(
    queries: np.ndarray, gallery: np.ndarray, k: int, exclude_self: bool, size: int
) -> Iterator[Block]:
    num_measured = min(k + _SPARE, len(gallery) - exclude_self)
    values_per_query = len(gallery) + num_measured * queries.shape[1]
    size = max(1, min(size, len(queries), _BLOCK_VALUES // values_per_query))
    on_device = jnp.asarray(gallery)
    for start in range(0, len(queries), size):
        block = queries[start : start + size]
        # Every block has the same shape, so that it is compiled once.
        padded = np.pad(block, ((0, size - len(block)), (0, 0)))
        own = np.arange(start, start + size) if exclude_self else np.full(size, -1)
        found = _search_block(padded, on_device, own.astype(np.int32), num_measured)
        distances, indices = (np.asarray(x)[: len(block), :k] for x in found)
        yield slice(start, start + len(block)), distances, indices


@functools.partial(jax.jit, static_argnames="num_measured")
def _search_block(queries, gallery, own, num_measured):
    """Returns ascending distances and rows `[B, num_measured]`, row `own` left out."""
    products = jnp.matmul(queries, gallery.T, precision=jax.lax.Precision.HIGHEST)
    # The query's own norm is the same for its whole row and ranks nothing.
    nearness = 2.0 * products - jnp.sum(jnp.square(gallery), axis=1)[None]
    is_own = jnp.arange(len(gallery))[None] == own[:, None]
    _, candidates = jax.lax.top_k(jnp.where(is_own, -jnp.inf, nearness), num_measured)
    gaps = queries[:, None] - gallery[candidates]
    distances = jnp.sum(jnp.square(gaps), axis=-1)
    return jax.lax.sort((distances, candidates.astype(jnp.int32)), num_keys=2)
