"""The axioms of a metric, measured on pairs and triples of real images.

A similarity s has the distance `max(s(x, x)) - s(a, b)`, the maximum being over the
images: zero is what the most self-similar image has. Were it the largest score of all
pairs, no distance could be negative, and that axiom would hold by construction; were it
each image's own score, d(a, a) = 0 would.
"""

from collections.abc import Callable
import dataclasses

import numpy as np

from deeprank_jax.errors import DataError
from deeprank_jax.search.neighbors import nearest_neighbors

Compare = Callable[[np.ndarray, np.ndarray], np.ndarray]

# Images beyond are not looked at, and neighbours are among the nearest.
_MAX_IMAGES, _NUM_NEIGHBORS = 2000, 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class AxiomDraws:
    """Images, pairs and triples on which the axioms are measured.

    Attributes:
      embeddings: `[N, D]` float64, embeddings of the images.
      pairs: `[P, 2]` int, two different images; in the second half the second is near
        the first.
      triples: `[T, 3]` int, three different images, any of all.
      near_triples: `[T, 3]` int, the second near the first and the third near the
        second, where a detour fails to be longer first.
    """

    embeddings: np.ndarray
    pairs: np.ndarray
    triples: np.ndarray
    near_triples: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Axioms:
    """Failures of the axioms; differences within the tolerance are none.

    Attributes:
      zero: Score that counts as distance 0; 0 for a distance.
      mean_distance: Mean distance of the pairs, the scale of all sizes.
      negative_share: Share of pairs with a negative distance.
      self_share: Share of images whose distance to themselves is not 0.
      mean_self: Mean distance of an image to itself, without its sign.
      asymmetric_share: Share of pairs whose distance depends on their order.
      mean_asymmetry: Mean difference of the two orders, without its sign.
      triangle_share: Share of triples with d(a, c) > d(a, b) + d(b, c).
      near_triangle_share: Share of the triples of neighbours.
      worst_excess: Largest d(a, c) - d(a, b) - d(b, c) of all triples; above 0 by
        rounding at most if none fails.
    """

    zero: float
    mean_distance: float
    negative_share: float
    self_share: float
    mean_self: float
    asymmetric_share: float
    mean_asymmetry: float
    triangle_share: float
    near_triangle_share: float
    worst_excess: float

    @property
    def breaks_triangle(self) -> bool:
        """Returns whether a triple fails by more than the tolerance."""
        return max(self.triangle_share, self.near_triangle_share) > 0


def draw_axioms(embeddings: np.ndarray, num: int, *, seed: int = 0) -> AxiomDraws:
    """Draws pairs and triples of images.

    Args:
      embeddings: `[N, D]` finite floats; of more than 2,000, as many are drawn.
      num: Number of pairs, and of triples of either kind, at least 2.
      seed: Seed of the draws.

    Raises:
      DataError: There are fewer than three images.
    """
    embeddings = np.asarray(embeddings)
    if len(embeddings) < 3:
        raise DataError(
            f"The triangle inequality needs three images, and there are "
            f"{len(embeddings)}: give a folder or list with more."
        )
    rng = np.random.default_rng(seed)
    if len(embeddings) > _MAX_IMAGES:
        embeddings = embeddings[rng.permutation(len(embeddings))[:_MAX_IMAGES]]
    embeddings = embeddings.astype(np.float64)
    size = len(embeddings)
    k = min(_NUM_NEIGHBORS, size - 1)
    _, neighbors = nearest_neighbors(embeddings, embeddings, k, exclude_self=True)

    def step(rows: np.ndarray, before: np.ndarray | None = None) -> np.ndarray:
        """Returns a neighbour of each image, another one than that before it."""
        places = rng.integers(0, k, len(rows))
        reached = neighbors[rows, places]
        if before is None:
            return reached
        next_place = neighbors[rows, (places + 1) % k]
        return np.where(reached == before, next_place, reached)

    first = rng.integers(0, size, num)
    second = (first + rng.integers(1, size, num)) % size
    # Neither the first nor the second: those two places are skipped, in order.
    third = rng.integers(0, size - 2, num)
    third += third >= np.minimum(first, second)
    third += third >= np.maximum(first, second)
    is_near = np.arange(num) >= num // 2
    start = rng.integers(0, size, num)
    middle = step(start)
    return AxiomDraws(
        embeddings=embeddings,
        pairs=np.stack([first, np.where(is_near, step(first), second)], axis=1),
        triples=np.stack([first, second, third], axis=1),
        near_triples=np.stack([start, middle, step(middle, start)], axis=1),
    )


def measure_axioms(
    compare: Compare, draws: AxiomDraws, *, is_distance: bool, tolerance: float = 1e-5
) -> Axioms:
    """Measures how often and how far the axioms fail.

    Args:
      compare: Function of two `[N, D]` to distances or similarities `[N]`.
      draws: Images, pairs and triples.
      is_distance: True for distances; False for similarities, of which a distance is
        made as the module says.
      tolerance: Difference that counts as rounding, as a share of the mean distance;
        at least 0.

    Raises:
      DataError: A distance is not finite.
    """
    rows = draws.embeddings
    self_scores = _checked(compare(rows, rows))
    zero = 0.0 if is_distance else float(self_scores.max())

    def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        scores = _checked(compare(rows[a], rows[b]))
        return scores if is_distance else zero - scores

    forward = distance(*draws.pairs.T)
    backward = distance(*draws.pairs[:, ::-1].T)
    mean_distance = float(np.mean((forward + backward) / 2))
    slack = tolerance * abs(mean_distance)
    selves = np.abs(self_scores if is_distance else zero - self_scores)
    asymmetry = np.abs(forward - backward)
    excesses = [
        distance(a, c) - distance(a, b) - distance(b, c)
        for a, b, c in (draws.triples.T, draws.near_triples.T)
    ]
    share = lambda fails: float(np.mean(fails))
    return Axioms(
        zero=zero,
        mean_distance=mean_distance,
        negative_share=share(np.concatenate([forward, backward]) < -slack),
        self_share=share(selves > slack),
        mean_self=float(selves.mean()),
        asymmetric_share=share(asymmetry > slack),
        mean_asymmetry=float(asymmetry.mean()),
        triangle_share=share(excesses[0] > slack),
        near_triangle_share=share(excesses[1] > slack),
        worst_excess=float(np.concatenate(excesses).max()),
    )


def _checked(scores: np.ndarray) -> np.ndarray:
    scores = np.asarray(scores, np.float64)
    num_bad = int(np.count_nonzero(~np.isfinite(scores)))
    if num_bad:
        raise DataError(
            f"{num_bad:,} of {len(scores):,} distances are not finite: train the "
            "similarity again, at a lower rate."
        )
    return scores
