"""Mining of positives and negatives for a block of anchors.

Images are judged by relevance, never by class, and an image is named by its column in
`[B, M]`, the pairs of `B` anchors and all `M` images of the batch. No gradient flows
through the choice.
"""

import jax
import jax.numpy as jnp

from deeprank_jax.losses.triplet import squared_distance

Array = jax.Array

# Relative, for the rounding of two relevances, their gap and one subtraction to
# float32: below 2.4e-7.
_SLACK = 1e-6

# Distances of unit vectors. Below the first all negatives weigh the same, since nearer
# ones are mostly noise; beyond the second none is drawn, since it teaches nothing.
NEAREST_WEIGHTED, FARTHEST_WEIGHTED = 0.5, 1.4


def is_less_relevant(
    relevance: Array, positive_relevance: Array, min_gap: Array | float
) -> Array:
    """Returns where an image is less relevant than the positive by the gap or more.

    A gap of exactly `min_gap` passes: .06 - .01 is below .05 in float32. An image as
    relevant as the positive never passes, however small `min_gap` is. `sampling` judges
    alike, in float64.

    Args:
      relevance: `[...]` float, relevance of the images to an anchor, at least 0.
      positive_relevance: `[...]` float, that of its positive, broadcast to `relevance`.
      min_gap: `T_r` of the paper's equation (8), at least 0.

    Returns:
      `[...]` bool.
    """
    most = positive_relevance * (1.0 + _SLACK) - min_gap
    return (relevance < positive_relevance) & (relevance <= most)


def is_as_relevant(relevance: Array, positive_relevance: Array) -> Array:
    """Returns where an image is as relevant as the positive or more.

    Up to rounding: a relevance may differ in its last digits between two shapes.

    Args:
      relevance: `[...]` float, relevance of the images to an anchor, at least 0.
      positive_relevance: `[...]` float, that of its positive, broadcast to `relevance`.

    Returns:
      `[...]` bool.
    """
    return relevance >= positive_relevance * (1.0 - _SLACK)


def pairwise_squared_distances(x: Array, y: Array) -> Array:
    """Returns all `||x_i - y_j||^2`: `[N, D], [M, D] -> [N, M]`, at least 0.

    The product runs in full precision: rounding it to bfloat16 or TF32 would drown
    the small distances, which are the ones that matter.
    """
    products = jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)
    norms = jnp.sum(jnp.square(x), -1)[:, None] + jnp.sum(jnp.square(y), -1)[None]
    return jnp.maximum(norms - 2.0 * products, 0.0)


def semi_hard_negatives(
    anchors: Array,
    positives: Array,
    images: Array,
    *,
    positive_relevance: Array,
    relevance: Array,
    min_relevance_gap: float,
) -> tuple[Array, Array]:
    """Finds, for each anchor, the nearest negative that lies beyond its positive.

    A negative is an image that is less relevant to the anchor than its positive is, by
    `min_relevance_gap` or more. Memory is `B * M`.

    Args:
      anchors: `[B, D]` embeddings.
      positives: `[B, D]`.
      images: `[M, D]`, embeddings of all images of the batch.
      positive_relevance: `[B]`, relevance of each positive to its anchor.
      relevance: `[B, M]`, relevance of each image to each anchor.
      min_relevance_gap: `T_r` of the paper's equation (8), above 0.

    Returns:
      `[B]` int, columns of the negatives, and `[B]` bool, False where no negative lies
      beyond the positive and the column is meaningless.

    References:
      Schroff et al., FaceNet, 2015, https://arxiv.org/abs/1503.03832: semi-hard
      negatives, there by class and only inside the margin.
    """
    anchors, positives, images = jax.lax.stop_gradient((anchors, positives, images))
    distances = pairwise_squared_distances(anchors, images)
    beyond = distances > squared_distance(anchors, positives)[:, None]
    less_relevant = is_less_relevant(
        relevance, positive_relevance[:, None], min_relevance_gap
    )
    candidates = jnp.where(less_relevant & beyond, distances, jnp.inf)
    return jnp.argmin(candidates, axis=1), jnp.any(jnp.isfinite(candidates), axis=1)


def log_inverse_density(squared_distances: Array, dim: int) -> Array:
    r"""Returns the rarity of a distance among points spread evenly on a sphere.

    .. math::
      -\ln q(d), \quad q(d) \propto d^{n-2} (1 - d^2 / 4)^{(n-3)/2}

    As `q` rises up to the distance 1.41, taking distances as at least
    `NEAREST_WEIGHTED` is `\min(\lambda, 1 / q(d))` with `\lambda = 1 / q(0.5)`.

    Args:
      squared_distances: `[...]` float, squared distances of unit vectors.
      dim: Dimensions `n` of the embedding, whose sphere `q` belongs to.

    Returns:
      `[...]` float, up to a constant; distances beyond `FARTHEST_WEIGHTED` give the
      value of `FARTHEST_WEIGHTED`.
    """
    squared = jnp.clip(squared_distances, NEAREST_WEIGHTED**2, FARTHEST_WEIGHTED**2)
    return -0.5 * ((dim - 2) * jnp.log(squared) + (dim - 3) * jnp.log1p(-squared / 4))


def distance_weighted_negatives(
    keys: Array,
    anchors: Array,
    images: Array,
    *,
    columns: Array,
    positive_relevance: Array,
    relevance: Array,
    min_relevance_gap: float,
) -> tuple[Array, Array]:
    """Draws, for each anchor, a negative evenly over the distances.

    Most images lie near the distance 1.41 of each other, so that a uniform draw is
    nearly always far and easy: each is weighted by one over the density of its
    distance, and at most as if it lay `NEAREST_WEIGHTED` away. Memory is `B * M`.

    Args:
      keys: `[B]` random keys, one for each anchor, so that its draw does not depend on
        the other anchors of its device.
      anchors: `[B, D]` embeddings of unit length.
      images: `[M, D]` of unit length, embeddings of all images of the batch.
      columns: `[B]` int, columns of the anchors.
      positive_relevance: `[B]`, relevance of each positive to its anchor.
      relevance: `[B, M]`, relevance of each image to each anchor.
      min_relevance_gap: `T_r` of the paper's equation (8), above 0.

    Returns:
      `[B]` int, columns of the negatives, and `[B]` bool, False where no negative lies
      within `FARTHEST_WEIGHTED` and the column is meaningless.

    References:
      Wu et al., Sampling Matters in Deep Embedding Learning, 2017,
      https://arxiv.org/abs/1706.07567; there by class.
    """
    anchors, images = jax.lax.stop_gradient((anchors, images))
    distances = pairwise_squared_distances(anchors, images)
    less_relevant = is_less_relevant(
        relevance, positive_relevance[:, None], min_relevance_gap
    )
    candidates = less_relevant & (distances <= FARTHEST_WEIGHTED**2)
    candidates &= ~_are(columns, images)
    log_weights = log_inverse_density(distances, anchors.shape[-1])
    log_weights = jnp.where(candidates, log_weights, -jnp.inf)
    negatives = jax.vmap(jax.random.categorical)(keys, log_weights)
    return negatives, jnp.any(candidates, axis=1)


def hardest_pairs(
    anchors: Array,
    images: Array,
    *,
    columns: Array,
    positive_columns: Array,
    positive_relevance: Array,
    relevance: Array,
    min_relevance_gap: float,
) -> tuple[Array, Array, Array]:
    """Finds, for each anchor, its farthest positive and its nearest negative.

    A positive is an image that is at least as relevant to the anchor as its own
    positive is; a negative is less relevant than that, by `min_relevance_gap` or more.
    The anchor itself is neither. Another copy of its record may be a positive, since
    copies are not recognised; it lies near, where the farthest does not. Memory is
    `B * M`.

    Args:
      anchors: `[B, D]` embeddings.
      images: `[M, D]`, embeddings of all images of the batch.
      columns: `[B]` int, columns of the anchors.
      positive_columns: `[B]` int, columns of their own positives.
      positive_relevance: `[B]`, relevance of its own positive to each anchor.
      relevance: `[B, M]`, relevance of each image to each anchor.
      min_relevance_gap: `T_r` of the paper's equation (8), above 0.

    Returns:
      `[B]` int, columns of the positives, of which the anchor's own is always one;
      `[B]` int, columns of the negatives; `[B]` bool, False where there is no negative
      and its column is meaningless.

    References:
      Hermans et al., In Defense of the Triplet Loss for Person Re-Identification,
      2017, https://arxiv.org/abs/1703.07737: batch-hard, there by class.
    """
    anchors, images = jax.lax.stop_gradient((anchors, images))
    distances = pairwise_squared_distances(anchors, images)
    others = ~_are(columns, images)
    less_relevant = others & is_less_relevant(
        relevance, positive_relevance[:, None], min_relevance_gap
    )
    as_relevant = is_as_relevant(relevance, positive_relevance[:, None])
    as_relevant &= others & ~less_relevant
    # Its own positive, whatever the rounding of its relevance.
    as_relevant |= _are(positive_columns, images)
    return (
        jnp.argmax(jnp.where(as_relevant, distances, -jnp.inf), axis=1),
        jnp.argmin(jnp.where(less_relevant, distances, jnp.inf), axis=1),
        jnp.any(less_relevant, axis=1),
    )


def _are(columns: Array, images: Array) -> Array:
    """Returns the columns `[B]` as a mask, `[B, M]` bool."""
    return columns[:, None] == jnp.arange(len(images))[None]
