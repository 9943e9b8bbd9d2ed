"""Which images of a folder are copies of each other, and which belong together?

Distances are squared Euclidean.
"""

from collections.abc import Iterator

import numpy as np
from scipy import sparse
from scipy.cluster import hierarchy
from scipy.sparse import csgraph
from scipy.spatial import distance

from deeprank_jax.errors import DataError, needs_extra

# Above, the table of all distances would not fit: 400 MiB.
MAX_LINKED = 10_000
# Pairs whose distances are computed at a time, and measured again at a time.
_BLOCK_PAIRS, _PAIRS_AT_ONCE = 2**23, 2**14


def find_duplicates(
    embeddings: np.ndarray,
    max_distance: float,
    pixels: np.ndarray | None = None,
    max_pixel_distance: float = 0.0,
) -> list[np.ndarray]:
    """Groups images that are within a distance, directly or by others between them.

    Args:
      embeddings: `[N, D]` finite floats.
      max_distance: squared, at least 0.
      pixels: optional `[N, P]` floats, which have to be near, too.
      max_pixel_distance: squared, how near.

    Returns:
      The indices of each group of two or more, ascending; larger groups first, then
      by their first index.
    """
    found = np.arange(len(embeddings))
    for i, j in _near_pairs(np.asarray(embeddings, np.float32), max_distance):
        if pixels is not None:
            near = _squares(pixels, i, j) <= max_pixel_distance
            i, j = i[near], j[near]
        # At once, so that no more than a block's pairs are ever held.
        found = _joined(found, i, j)
    return _groups(found, at_least=2)


def find_clusters(
    embeddings: np.ndarray,
    *,
    max_distance: float | None = None,
    num: int | None = None,
    seed: int = 0,
) -> list[np.ndarray]:
    """Groups images by average linkage, or a great many of them by k-means.

    Args:
      embeddings: `[N, D]` finite floats.
      max_distance: groups whose images are on average at most that far apart, squared,
        are joined.
      num: how many groups, instead; above 10,000 images these are k-means' own.
      seed: of k-means.

    Returns:
      The indices of each group, ascending; larger groups first, then by their first
      index. Every image is in one.

    Raises:
      ValueError: neither or both of `max_distance` and `num` are given, `num` is out
        of range, or there are too many images for linkage.
    """
    if (max_distance is None) == (num is None):
        raise ValueError("Give either max_distance or num.")
    if num is not None and not 1 <= num <= len(embeddings):
        raise DataError(
            f"num={num} clusters of {len(embeddings):,} images: choose from 1 to "
            f"{len(embeddings):,}."
        )
    if len(embeddings) < 2:
        return _groups(np.zeros(len(embeddings), int), at_least=1)
    if len(embeddings) > MAX_LINKED:
        if num is None:
            raise DataError(
                f"{len(embeddings):,} images are more than the {MAX_LINKED:,} whose "
                "distances fit in memory: give num, the number of clusters."
            )
        with needs_extra("search"):
            from sklearn import cluster
        means = cluster.MiniBatchKMeans(num, random_state=seed, n_init=3)
        return _groups(means.fit_predict(embeddings), at_least=1)
    apart = distance.pdist(np.asarray(embeddings, np.float64), "sqeuclidean")
    tree = hierarchy.linkage(apart, "average")
    if num is not None:
        found = hierarchy.fcluster(tree, num, "maxclust")
    else:
        found = hierarchy.fcluster(tree, max_distance, "distance")
    return _groups(found, at_least=1)


def _near_pairs(
    embeddings: np.ndarray, max_distance: float
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields pairs `i < j` within the distance, a block of rows at a time."""
    norms = np.einsum("nd,nd->n", embeddings, embeddings)
    size = max(1, _BLOCK_PAIRS // max(1, len(embeddings)))
    # What a matrix product rounds away must not lose a pair; it is measured again.
    spare = 1e-4 * (1.0 + 2.0 * norms.max(initial=0.0))
    for start in range(0, len(embeddings), size):
        block = embeddings[start : start + size]
        squares = norms[start : start + size, None] + norms[start:]
        squares = squares - 2.0 * block @ embeddings[start:].T
        i, j = np.nonzero(squares <= max_distance + spare)
        i, j = i[i < j] + start, j[i < j] + start
        near = _squares(embeddings, i, j) <= max_distance
        yield i[near], j[near]


def _squares(rows: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Returns the squared distance of each pair `[P]`, some pairs at a time."""
    squares = np.empty(len(i), np.float32)
    for start in range(0, len(i), _PAIRS_AT_ONCE):
        part = slice(start, start + _PAIRS_AT_ONCE)
        gaps = rows[i[part]] - rows[j[part]]
        squares[part] = np.einsum("nd,nd->n", gaps, gaps)
    return squares


def _joined(component: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Returns the components `[N]` once pairs are joined, too."""
    if not len(i):
        return component
    num = len(component)
    ends = component[i], component[j]
    graph = sparse.coo_array((np.ones(len(i), bool), ends), shape=(num, num))
    return csgraph.connected_components(graph, directed=False)[1][component]


def _groups(found: np.ndarray, *, at_least: int) -> list[np.ndarray]:
    order = np.argsort(found, kind="stable")
    cuts = np.flatnonzero(np.diff(found[order])) + 1
    groups = [group for group in np.split(order, cuts) if len(group) >= at_least]
    return sorted(groups, key=lambda group: (-len(group), group[0]))
