"""Which image of the batch stands in for a triplet's sampled negative."""

import jax
import jax.numpy as jnp

from deeprank_jax.losses.triplet import squared_distance

Array = jax.Array

# Relative, for the rounding of two relevances, their gap and one subtraction to
# float32: below 2.4e-7.
_SLACK = 1e-6


def is_less_relevant(
    relevance: Array, positive_relevance: Array, min_gap: Array | float
) -> Array:
    """Returns whether an image is less relevant than the positive by the gap or more.

    A gap of just `min_gap` passes: .06 - .01 is below .05 in float32. What is as
    relevant as the positive never does, however small `min_gap` is. `sampling` judges
    alike, in float64.

    Args:
      relevance: `[...]` float of the images to an anchor, at least 0.
      positive_relevance: `[...]` float of its positive, broadcast to `relevance`.
      min_gap: `T_r` of the paper's equation (8), at least 0.

    Returns:
      `[...]` bool.
    """
    most = positive_relevance * (1.0 + _SLACK) - min_gap
    return (relevance < positive_relevance) & (relevance <= most)


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
      images: `[M, D]`, all images of the device's batch.
      positive_relevance: `[B]`, of each positive to its anchor.
      relevance: `[B, M]`, of each image to each anchor.
      min_relevance_gap: `T_r` of the paper's equation (8), above 0.

    Returns:
      `[B]` int, which image each found, and `[B]` bool, False where no negative lies
      beyond the positive and the index means nothing.

    References:
      Schroff et al., FaceNet, 2015, https://arxiv.org/abs/1503.03832: semi-hard
      negatives, there by class and only inside the margin.
    """
    # Which image is picked is a choice, not a function to differentiate.
    anchors, positives, images = jax.lax.stop_gradient((anchors, positives, images))
    distances = pairwise_squared_distances(anchors, images)
    beyond = distances > squared_distance(anchors, positives)[:, None]
    less_relevant = is_less_relevant(
        relevance, positive_relevance[:, None], min_relevance_gap
    )
    candidates = jnp.where(less_relevant & beyond, distances, jnp.inf)
    return jnp.argmin(candidates, axis=1), jnp.any(jnp.isfinite(candidates), axis=1)
