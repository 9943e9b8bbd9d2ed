"""Groups of near embeddings: duplicates and clusters.

Distances are squared Euclidean.
"""

from collections.abc import Callable, Iterator

import numpy as np
import scipy

from deeprank_jax.errors import DataError, needs_extra

# Number of images whose table of all distances takes 400 MiB.
MAX_LINKED = 10_000
# Pairs per matrix product, and pairs whose distances are then computed directly.
_BLOCK_PAIRS, _PAIRS_AT_ONCE = 2**23, 2**14


def find_duplicates(
    embeddings: np.ndarray,
    max_distance: float,
    pixels: np.ndarray | None = None,
    max_pixel_distance: float = 0.0,
    is_copy: Callable[[int, int], bool] | None = None,
) -> list[np.ndarray]:
    """Groups images that are within a distance, directly or through other images.

    Args:
      embeddings: `[N, D]` finite floats.
      max_distance: Largest squared distance of two copies, at least 0.
      pixels: `[N, P]` floats, pixels that must be near, too; None for no such test.
      max_pixel_distance: Largest squared distance of two copies' pixels.
      is_copy: Function from the indices of two images that are near to the verdict; it
        is not asked about images of one group. None for copies wherever they are near.

    Returns:
      The indices of each group of two or more, ascending; larger groups first, then
      by their first index.
    """
    component = np.arange(len(embeddings))
    for i, j, apart in _near_pairs(np.asarray(embeddings, np.float32), max_distance):
        if pixels is not None:
            near = _squares(pixels, i, j) <= max_pixel_distance
            i, j, apart = i[near], j[near], apart[near]
        # Joined block by block, so that only the pairs of one block are in memory.
        if is_copy is None:
            component = _joined(component, i, j)
        else:
            nearest = np.argsort(apart, kind="stable")
            _join_copies(component, i[nearest], j[nearest], is_copy)
    return _groups(component, at_least=2)


def find_clusters(
    embeddings: np.ndarray,
    *,
    max_distance: float | None = None,
    num: int | None = None,
    seed: int = 0,
) -> list[np.ndarray]:
    """Groups images by average linkage, or by k-means above 10,000 images.

    Args:
      embeddings: `[N, D]` finite floats.
      max_distance: Largest mean squared distance of two groups that are joined.
      num: Number of groups, in place of a distance.
      seed: Seed of k-means.

    Returns:
      The indices of each group, ascending; larger groups first, then by their first
      index. Every image is in one group.

    Raises:
      DataError: `num` is out of range, or there are too many images for linkage.
      ValueError: Neither or both of `max_distance` and `num` are set.
    """
    if (max_distance is None) == (num is None):
        raise ValueError("max_distance or num must be set, and not both.")
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
    apart = scipy.spatial.distance.pdist(
        np.asarray(embeddings, np.float64), "sqeuclidean"
    )
    hierarchy = scipy.cluster.hierarchy
    tree = hierarchy.linkage(apart, "average")
    if num is not None:
        assignments = hierarchy.fcluster(tree, num, "maxclust")
    else:
        assignments = hierarchy.fcluster(tree, max_distance, "distance")
    return _groups(assignments, at_least=1)


def _near_pairs(
    embeddings: np.ndarray, max_distance: float
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields pairs `i < j` within the distance, and their own, by blocks of rows."""
    norms = np.einsum("nd,nd->n", embeddings, embeddings)
    size = max(1, _BLOCK_PAIRS // max(1, len(embeddings)))
    # Slack for the rounding of the matrix product; distances are computed again below.
    slack = 1e-4 * (1.0 + 2.0 * norms.max(initial=0.0))
    for start in range(0, len(embeddings), size):
        block = embeddings[start : start + size]
        squares = norms[start : start + size, None] + norms[start:]
        squares = squares - 2.0 * block @ embeddings[start:].T
        i, j = np.nonzero(squares <= max_distance + slack)
        i, j = i[i < j] + start, j[i < j] + start
        apart = _squares(embeddings, i, j)
        near = apart <= max_distance
        yield i[near], j[near], apart[near]


def _squares(rows: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Returns the squared distance of each pair `[P]`, a block of pairs at a time."""
    squares = np.empty(len(i), np.float32)
    for start in range(0, len(i), _PAIRS_AT_ONCE):
        part = slice(start, start + _PAIRS_AT_ONCE)
        gaps = rows[i[part]] - rows[j[part]]
        squares[part] = np.einsum("nd,nd->n", gaps, gaps)
    return squares


def _joined(component: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Returns the components `[N]` after joining pairs of rows."""
    if not len(i):
        return component
    num = len(component)
    ends = component[i], component[j]
    graph = scipy.sparse.coo_array((np.ones(len(i), bool), ends), shape=(num, num))
    return scipy.sparse.csgraph.connected_components(graph, directed=False)[1][
        component
    ]


def _join_copies(
    component: np.ndarray,
    i: np.ndarray,
    j: np.ndarray,
    is_copy: Callable[[int, int], bool],
) -> None:
    """Joins the components `[N]` of copies in place; pairs of one are not compared."""
    for start in range(0, len(i), _PAIRS_AT_ONCE):
        part = slice(start, start + _PAIRS_AT_ONCE)
        differ = component[i[part]] != component[j[part]]
        ends = i[part][differ].tolist(), j[part][differ].tolist()
        for one, other in zip(*ends, strict=True):
            if component[one] != component[other] and is_copy(one, other):
                component[component == component[other]] = component[one]


def _groups(assignments: np.ndarray, *, at_least: int) -> list[np.ndarray]:
    """Returns the indices of each group; larger groups first."""
    order = np.argsort(assignments, kind="stable")
    cuts = np.flatnonzero(np.diff(assignments[order])) + 1
    groups = [group for group in np.split(order, cuts) if len(group) >= at_least]
    return sorted(groups, key=lambda group: (-len(group), group[0]))
