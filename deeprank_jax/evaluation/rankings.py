"""At which rank of a whole gallery does a record come?

What the nearest few cannot say needs every distance. They are measured in double
precision, some queries at a time, and equal rows of the gallery are equally far to
the last bit, so that they rank in gallery order here too.
"""

from collections.abc import Iterator

import numpy as np

# Distances held at a time: 32 MiB as float64, and a few times as much beside them.
_BLOCK_VALUES = 2**22


def distance_blocks(
    queries: np.ndarray, gallery: np.ndarray, rows: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Measures the distances of some records to all others, a block at a time.

    Args:
      queries: `[N, D]` finite floats, record `i` as a query.
      gallery: `[N, D]` finite floats, record `i` as what is searched.
      rows: `[M]` ints, the queries to measure, in any order.

    Yields:
      A part of `rows`, `[B]`, and their squared distances `[B, N]` float64, that of a
      record to itself being infinite: it is no neighbour of its own.
    """
    # As float32, which embeddings are: what is equal there is one row.
    unique, inverse = np.unique(
        np.asarray(gallery, np.float32), axis=0, return_inverse=True
    )
    unique = unique.astype(np.float64)
    # Distances stay as they are, and their rounding becomes less; none is added to
    # codes of a few bits, which the mean would not be a number of.
    center = np.median(unique, axis=0) if len(unique) else 0.0
    unique -= center
    norms = np.einsum("nd,nd->n", unique, unique)
    step = max(1, _BLOCK_VALUES // max(len(gallery), 1))
    for start in range(0, len(rows), step):
        chosen = rows[start : start + step]
        block = np.asarray(queries[chosen], np.float32).astype(np.float64) - center
        own_norms = np.einsum("nd,nd->n", block, block)[:, None]
        squares = np.maximum(own_norms + norms - 2.0 * block @ unique.T, 0.0)
        distances = squares[:, inverse.reshape(-1)]
        distances[np.arange(len(chosen)), chosen] = np.inf
        yield chosen, distances


def first_ranks(
    queries: np.ndarray, gallery: np.ndarray, classes: np.ndarray, rows: np.ndarray
) -> np.ndarray:
    """Returns at which rank the first record of a query's class comes.

    Memory is that of one block of distances, whatever the number of queries.

    Args:
      queries: as of `distance_blocks`.
      gallery: as of `distance_blocks`.
      classes: `[N]` ints.
      rows: `[M]` ints, queries whose class has another record.

    Returns:
      `[M]` ints, 1 for the nearest. Equal distances rank in gallery order.
    """
    ranks = np.zeros(len(classes), np.int64)
    order = np.arange(len(classes))
    for chosen, distances in distance_blocks(queries, gallery, rows):
        of_class = classes[chosen, None] == classes[None]
        relevant = np.where(of_class, distances, np.inf)
        # The earliest of equally near ones.
        first = relevant.argmin(axis=1)[:, None]
        nearest = np.take_along_axis(relevant, first, axis=1)
        before = (distances < nearest) | ((distances == nearest) & (order < first))
        ranks[chosen] = 1 + np.count_nonzero(before, axis=1)
    return ranks[rows]
