"""Rankings of a split searched with its own records, and exact ranks in a gallery.

Exact ranks need every distance. These are computed in double precision, a block of
queries at a time. Equal rows of the gallery get exactly equal distances, so that they
rank in gallery order.
"""

from collections.abc import Iterator
import dataclasses

import numpy as np

from deeprank_jax.evaluation.average_precision import average_precision
from deeprank_jax.search.neighbors import neighbor_blocks

# Distances held at a time: 32 MiB as float64, and a few times as much beside them.
_BLOCK_VALUES = 2**22


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Ranking:
    """A split searched with its own records, leave-one-out.

    Attributes:
      queries: `[M]` int, indices of the records that take part.
      neighbors: `[M, K]` int, indices of each query's nearest records, nearest first.
      distances: `[M, K]` squared distances, ascending.
      average_precision: `[M]` average precision at R; NaN for the only record of its
        class.
    """

    queries: np.ndarray
    neighbors: np.ndarray
    distances: np.ndarray
    average_precision: np.ndarray


def rank_records(
    classes: np.ndarray,
    embeddings: np.ndarray,
    where: np.ndarray | None = None,
    *,
    num_neighbors: int = 8,
) -> Ranking:
    """Searches a split with its own records.

    Args:
      classes: `[N]` int, class of each record.
      embeddings: `[N, D]` float, one row per record.
      where: Optional `[N]` bool, the records that are queries and gallery.
      num_neighbors: Number of neighbours to keep; fewer if there are fewer records.

    Returns:
      The ranking, with no neighbours if fewer than two records take part.
    """
    indices = np.arange(len(classes)) if where is None else np.flatnonzero(where)
    classes = classes[indices]
    num_relevant = class_sizes(classes) - 1
    depth = min(max(num_neighbors, num_relevant.max(initial=0)), len(indices) - 1)
    shape = (len(indices), max(0, min(num_neighbors, depth)))
    ranking = Ranking(
        queries=indices,
        neighbors=np.zeros(shape, int),
        distances=np.zeros(shape, np.float32),
        average_precision=np.full(len(indices), np.nan),
    )
    if depth < 1:
        return ranking
    rows_taking_part = embeddings[indices]
    # Only one block of queries at a time is ranked to the depth of the largest class.
    blocks = neighbor_blocks(
        rows_taking_part, rows_taking_part, depth, exclude_self=True
    )
    for rows, distances, neighbors in blocks:
        ranking.neighbors[rows] = indices[neighbors[:, :num_neighbors]]
        ranking.distances[rows] = distances[:, :num_neighbors]
        hits = classes[neighbors] == classes[rows, None]
        precision = average_precision(hits, num_relevant[rows])
        ranking.average_precision[rows] = np.where(
            num_relevant[rows] > 0, precision, np.nan
        )
    return ranking


def class_sizes(classes: np.ndarray) -> np.ndarray:
    """Returns `[N]` int, the number of records of each record's class."""
    _, label, counts = np.unique(classes, return_inverse=True, return_counts=True)
    return counts[label]


def distance_blocks(
    queries: np.ndarray, gallery: np.ndarray, rows: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Computes the distances of some records to all others, a block at a time.

    Args:
      queries: `[N, D]` finite floats, record `i` as a query.
      gallery: `[N, D]` finite floats, record `i` in the gallery.
      rows: `[M]` int, the queries, in any order.

    Yields:
      A part of `rows`, `[B]`, and their squared distances `[B, N]` float64. The
      distance of a record to itself is infinite: it is not its own neighbour.
    """
    # Equality is decided in float32, the type of embeddings.
    unique, inverse = np.unique(
        np.asarray(gallery, np.float32), axis=0, return_inverse=True
    )
    unique = unique.astype(np.float64)
    # Centring keeps the distances and reduces rounding. The median, unlike the mean,
    # adds no rounding to codes of a few bits.
    center = np.median(unique, axis=0) if len(unique) else 0.0
    unique -= center
    norms = np.einsum("nd,nd->n", unique, unique)
    step = max(1, _BLOCK_VALUES // max(len(gallery), 1))
    for start in range(0, len(rows), step):
        block_rows = rows[start : start + step]
        block = np.asarray(queries[block_rows], np.float32).astype(np.float64) - center
        query_norms = np.einsum("nd,nd->n", block, block)[:, None]
        squares = np.maximum(query_norms + norms - 2.0 * block @ unique.T, 0.0)
        distances = squares[:, inverse.reshape(-1)]
        distances[np.arange(len(block_rows)), block_rows] = np.inf
        yield block_rows, distances


def first_ranks(
    queries: np.ndarray, gallery: np.ndarray, classes: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """Returns the rank of the first record of each query's class.

    Memory is that of one block of distances, for any number of queries.

    Args:
      queries: `[N, D]` finite floats, see `distance_blocks`.
      gallery: `[N, D]` finite floats, see `distance_blocks`.
      classes: `[N]` int, class of each record.
      rows: `[M]` int, queries whose class has another record.

    Returns:
      `[M]` int, 1 for the nearest. Equal distances rank in gallery order.
    """
    ranks = np.zeros(len(classes), np.int64)
    order = np.arange(len(classes))
    for block_rows, distances in distance_blocks(queries, gallery, rows):
        is_relevant = classes[block_rows, None] == classes[None]
        relevant = np.where(is_relevant, distances, np.inf)
        # argmin takes the first of equally near records.
        first = relevant.argmin(axis=1)[:, None]
        nearest = np.take_along_axis(relevant, first, axis=1)
        before = (distances < nearest) | ((distances == nearest) & (order < first))
        ranks[block_rows] = 1 + np.count_nonzero(before, axis=1)
    return ranks[rows]
