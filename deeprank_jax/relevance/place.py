"""Relevance by place: near tiles of one image are similar.

Convention: the place of a tile is its image and the row and column of its centre, in
pixels; the distance of two places is Euclidean.
"""

from collections.abc import Sequence
import math

import numpy as np
from scipy import spatial

from deeprank_jax.data.records import Records
from deeprank_jax.errors import DataError
from deeprank_jax.relevance.base import Array

# float32 represents every whole number up to this one.
_LARGEST = 2**24
# Tiles whose neighbours are in memory at a time.
_BLOCK = 2**12


class Place:
    """1 within a radius, 0 from a larger one on and in other images, linear between.

    References:
      Gildenblat and Klaiman, Self-Supervised Similarity Learning for Digital Pathology,
      2019, https://arxiv.org/abs/1905.08139, who take near tiles as similar and far
      tiles as not; the fall between the two radii is this project's.
    """

    def __init__(self, radius: float, far_radius: float | None = None):
        """Creates the relevance.

        Args:
          radius: Distance of centres in pixels up to which the relevance is 1, above 0.
          far_radius: Distance from which it is 0, at least `radius`; None for `radius`
            itself, beyond which all is irrelevant.

        Raises:
          ValueError: A radius is out of its range.
        """
        far_radius = radius if far_radius is None else far_radius
        if not 0 < radius < math.inf:
            raise ValueError(f"radius must be above 0 and finite, got {radius}.")
        if not radius <= far_radius < math.inf:
            raise ValueError(
                f"far_radius must be at least radius={radius} and finite, got "
                f"{far_radius}."
            )
        self.radius = float(radius)
        self.far_radius = float(far_radius)

    def attributes(self, splits: Sequence[Records]) -> list[np.ndarray]:
        """Returns image, row and column, `[N, 3]` float32 for each split.

        Raises:
          DataError: The records are no tiles, a number is too large for float32, or no
            two tiles of a split are within the radius.
        """
        return [self._places(records) for records in splits]

    def pairwise(self, a: Array, b: Array) -> Array:
        """Returns the relevance of `[..., 3]` to `[..., 3]`, as `[...]`."""
        xp = a.__array_namespace__()
        y, x = a[..., 1] - b[..., 1], a[..., 2] - b[..., 2]
        relevance = self._of_distance(xp.sqrt(y * y + x * x))
        return xp.where(a[..., 0] == b[..., 0], relevance, xp.zeros_like(relevance))

    def total(self, attributes: np.ndarray) -> np.ndarray:
        """Returns `[N]` float64, from the tiles within `far_radius` of each.

        Args:
          attributes: `[N, 3]`, places of the tiles.
        """
        totals = np.zeros(len(attributes))
        _, image = np.unique(attributes[:, 0], return_inverse=True)
        order = np.argsort(image, kind="stable")
        for members in np.split(order, np.cumsum(np.bincount(image))[:-1]):
            points = attributes[members, 1:].astype(np.float64)
            totals[members] = self._sum_near(points)
        return totals

    def _sum_near(self, points: np.ndarray) -> np.ndarray:
        """Returns the summed relevance of each point `[n, 2]` to all others."""
        tree = spatial.KDTree(points)
        sums = np.zeros(len(points))
        for first in range(0, len(points), _BLOCK):
            block = points[first : first + _BLOCK]
            pairs = spatial.KDTree(block).sparse_distance_matrix(
                tree, self.far_radius, output_type="ndarray"
            )
            sums[first : first + _BLOCK] = np.bincount(
                pairs["i"], self._of_distance(pairs["v"]), len(block)
            )
        return sums - 1.0  # A point is among those near to it.

    def _of_distance(self, distance: Array) -> Array:
        """Returns the relevance of distances in pixels."""
        xp = distance.__array_namespace__()
        fall = self.far_radius - self.radius
        if fall:
            return xp.clip((self.far_radius - distance) / fall, 0.0, 1.0)
        return 1.0 * (distance <= self.radius)

    def _places(self, records: Records) -> np.ndarray:
        columns = records.columns
        if records.level_names != ("image",) or not {"row", "column"} <= columns.keys():
            raise DataError(
                f"{records.name}: its records have no place in an image; the relevance "
                'place is for config.data.source.name="tiles".'
            )
        places = np.stack(
            [records.labels[:, 0], columns["row"], columns["column"]], axis=1
        )
        if places.max(initial=0) > _LARGEST:
            raise DataError(
                f"{records.name}: a tile has a row, column or image beyond "
                f"{_LARGEST:,}; read a higher config.data.source.level."
            )
        self._check_radius(records.name, places)
        return places.astype(np.float32)

    def _check_radius(self, name: str, places: np.ndarray) -> None:
        """Checks that some tile has another within the radius.

        Raises:
          DataError: None has.
        """
        nearest = math.inf
        for image in np.unique(places[:, 0]):
            points = places[places[:, 0] == image, 1:]
            if len(points) > 1:
                distances, _ = spatial.KDTree(points).query(points, k=2)
                nearest = min(nearest, distances[:, 1].min())
        if nearest > self.radius:
            apart = "of which no two are of one image"
            if nearest < math.inf:
                apart = f"which are {nearest:g} pixels apart or more"
            raise DataError(
                f"{name}: config.relevance.radius={self.radius:g} leaves no similar "
                f"tiles, {apart}; raise the radius, or lower config.data.source.stride "
                "and tile."
            )
