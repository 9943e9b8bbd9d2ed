"""Recall of a graph on sampled queries, from which the width of its search follows.

Two kinds of queries are tried: near ones, as far from a row as its nearest neighbour
is, and far ones, between two rows or scattered as the rows are. A graph whose rows are
tight clusters finds the former and misses many of the latter.
"""

import dataclasses
import sys
from typing import Any

import numpy as np

# Numbers of candidates kept in the walk, of which the smallest sufficient one is taken.
WIDTHS = (64, 128, 256, 512, 1024)
# Least recall of the ten nearest, with room for the error of the estimate.
_LEAST_RECALL, _K = 0.97, 10
_NUM_QUERIES = 60
# FAISS compares so few queries directly, without the rounding of matrix products.
_AT_ONCE = 16
# A query is near if its nearest row is at most this times as far, in squared distance,
# as most rows are from theirs.
_NEAR, _QUANTILE = 2.0, 0.99


@dataclasses.dataclass(frozen=True)
class SearchWidths:
    """Widths of the search in a graph.

    Attributes:
      near: Width for queries near to a row; 0 if no width finds enough.
      far: Width for other queries; 0 if no width finds enough.
      near_limit: Largest squared distance of the nearest row to a near query.
    """

    near: int = WIDTHS[0]
    far: int = WIDTHS[0]
    near_limit: float = np.inf


def measure_widths(graph: Any, num_rows: int) -> SearchWidths:
    """Returns the smallest widths that find .97 of the ten nearest rows.

    Args:
      graph: `IndexHNSWFlat` of FAISS.
      num_rows: Number of its rows.
    """
    if num_rows <= _K:
        return SearchWidths()
    rng = np.random.default_rng(num_rows)
    numbers = rng.choice(num_rows, min(_NUM_QUERIES, num_rows), replace=False)
    rows = _reconstruct(graph, numbers)
    nearest = _search_exactly(graph, rows, 2)[:, 1]
    noise = rng.standard_normal(rows.shape)
    lengths = np.linalg.norm(noise, axis=1, keepdims=True)
    near = rows + noise / lengths * np.sqrt(nearest)[:, None]
    scattered = rows.mean(axis=0) + rows.std(axis=0) * noise
    far = np.concatenate([(rows + rng.permutation(rows))[::2] / 2, scattered[1::2]])
    return SearchWidths(
        near=_least_width(graph, near),
        far=_least_width(graph, far),
        near_limit=_NEAR * float(np.quantile(nearest, _QUANTILE)),
    )


def search_graph(
    graph: Any, queries: np.ndarray, k: int, width: float, **options: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Walks a graph.

    Args:
      graph: `IndexHNSWFlat` of FAISS.
      queries: `[Q, D]` float32.
      k: Number of neighbours.
      width: Number of candidates kept in the walk, at least `k`.
      **options: Further options of FAISS's parameters.

    Returns:
      Squared distances `[Q, k]`, ascending, and row numbers `[Q, k]`, -1 for none.
    """
    # Imported by whoever made the graph.
    parameters = sys.modules["faiss"].SearchParametersHNSW(
        efSearch=int(width), **options
    )
    return graph.search(queries, k, params=parameters)


def _least_width(graph: Any, queries: np.ndarray) -> int:
    """Returns the smallest width that suffices for these queries, 0 if none does."""
    queries = queries.astype(np.float32)
    # Rows as far as the last of the nearest count, too.
    limits = _search_exactly(graph, queries, _K)[:, -1:] * (1 + 1e-5)
    for width in WIDTHS:
        distances, numbers = search_graph(graph, queries, _K, width)
        if ((distances <= limits) & (numbers >= 0)).mean() >= _LEAST_RECALL:
            return width
    return 0


def _search_exactly(graph: Any, queries: np.ndarray, k: int) -> np.ndarray:
    """Returns the squared distances `[Q, k]` of the nearest rows."""
    parts = range(0, len(queries), _AT_ONCE)
    distances = [graph.storage.search(queries[i : i + _AT_ONCE], k)[0] for i in parts]
    return np.concatenate(distances)


def _reconstruct(graph: Any, numbers: np.ndarray) -> np.ndarray:
    return np.stack([graph.storage.reconstruct(int(number)) for number in numbers])
