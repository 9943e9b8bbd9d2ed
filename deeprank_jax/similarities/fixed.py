"""Distances with nothing to train: squared Euclidean, Euclidean, cosine and angle."""

from typing import ClassVar

import numpy as np

from deeprank_jax.similarities.base import check_pairs, unit_rows


class SquaredEuclidean:
    r"""Squared Euclidean distance, that of the ranking loss.

    .. math::
      d(a, b) = \lVert a - b \rVert^2

    It is no metric: the triangle inequality can fail.

    References:
      Wang et al., Learning Fine-grained Image Similarity with Deep Ranking, 2014,
      https://arxiv.org/abs/1404.4661, equation (1).
    """

    is_distance: ClassVar[bool] = True

    def __call__(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Returns the distance of each pair, `[N]` float64; see `Similarity`."""
        a, b = check_pairs(a, b)
        return np.square(a - b).sum(axis=1)

    def describe(self) -> str:
        """Returns the name."""
        return "squared Euclidean distance"


class Euclidean:
    r"""Euclidean distance, a metric.

    .. math::
      d(a, b) = \lVert a - b \rVert
    """

    is_distance: ClassVar[bool] = True

    def __call__(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Returns the distance of each pair, `[N]` float64; see `Similarity`."""
        a, b = check_pairs(a, b)
        return np.linalg.norm(a - b, axis=1)

    def describe(self) -> str:
        """Returns the name."""
        return "Euclidean distance"


class CosineDistance:
    r"""Cosine distance, half the squared Euclidean distance of the unit vectors.

    .. math::
      d(a, b) = 1 - \frac{a^T b}{\lVert a \rVert \lVert b \rVert}
      = \tfrac12 \left\lVert \frac{a}{\lVert a \rVert}
      - \frac{b}{\lVert b \rVert} \right\rVert^2

    The second form is computed: it is exactly 0 for equal vectors, and never below. It
    is no metric: the triangle inequality can fail. A vector of zeros is at ½ from all
    others, and at 0 from another one.
    """

    is_distance: ClassVar[bool] = True

    def __call__(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Returns the distance of each pair, `[N]` float64; see `Similarity`."""
        a, b = map(unit_rows, check_pairs(a, b))
        return np.square(a - b).sum(axis=1) / 2

    def describe(self) -> str:
        """Returns the name."""
        return "cosine distance"


class Angle:
    r"""Angle between two embeddings, in radians, from 0 to pi: a metric on the sphere.

    .. math::
      d(a, b) = \arccos \frac{a^T b}{\lVert a \rVert \lVert b \rVert}
      = 2 \operatorname{atan2}(\lVert u - v \rVert, \lVert u + v \rVert)

    for the unit vectors u and v. The second form is computed: the arc cosine of a
    rounded cosine near 1 would be off by up to 1e-8, and by 3e-4 in float32.

    References:
      Kahan, How Futile are Mindless Assessments of Roundoff in Floating-Point
      Computation, 2006, section 12.
    """

    is_distance: ClassVar[bool] = True

    def __call__(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Returns the angle of each pair, `[N]` float64; see `Similarity`."""
        a, b = map(unit_rows, check_pairs(a, b))
        across, along = np.linalg.norm(a - b, axis=1), np.linalg.norm(a + b, axis=1)
        return 2 * np.arctan2(across, along)

    def describe(self) -> str:
        """Returns the name."""
        return "angle"
