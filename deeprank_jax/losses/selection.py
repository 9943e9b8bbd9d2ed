"""Which image of the batch stands in for a triplet's sampled negative."""

import jax
import jax.numpy as jnp

Array = jax.Array


def pairwise_squared_distances(x: Array, y: Array) -> Array:
    """Returns all `||x_i - y_j||^2`: `[N, D], [M, D] -> [N, M]`, at least 0.

    The product runs in full precision: rounding it to bfloat16 or TF32 would drown
    the small distances, which are the ones that matter.
    """
    products = jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)
    norms = jnp.sum(jnp.square(x), -1)[:, None] + jnp.sum(jnp.square(y), -1)[None]
    return jnp.maximum(norms - 2.0 * products, 0.0)


def semi_hard_negatives(
    triplets: Array, relevance: Array, *, min_relevance_gap: float
) -> tuple[Array, Array]:
    """Picks, for each anchor, the nearest negative that lies beyond its positive.

    Candidates are all `3B` images of the device's batch that are less relevant to the
    anchor than its positive is, by `min_relevance_gap` or more. Memory is `3B^2`.

    Args:
      triplets: `[B, 3, D]` embeddings: anchor, positive, negative.
      relevance: `[B, 3B]`, of each image to each anchor; image `3i + k` is
        `triplets[i, k]`.
      min_relevance_gap: `T_r` of the paper's equation (8), above 0.

    Returns:
      `[B, D]` negatives, and `[B]` bool, False where no candidate lies beyond the
      positive and the sampled negative was kept.

    References:
      Schroff et al., FaceNet, 2015, https://arxiv.org/abs/1503.03832: semi-hard
      negatives, there by class and only inside the margin.
    """
    num_triplets = triplets.shape[0]
    images = triplets.reshape(-1, triplets.shape[-1])
    # Which image is picked is a choice, not a function to differentiate.
    distances = pairwise_squared_distances(
        *jax.lax.stop_gradient((triplets[:, 0], images))
    )
    rows = jnp.arange(num_triplets)
    positive_columns = 3 * rows + 1
    less_relevant = (
        relevance <= relevance[rows, positive_columns][:, None] - min_relevance_gap
    )
    beyond = distances > distances[rows, positive_columns][:, None]
    candidates = jnp.where(less_relevant & beyond, distances, jnp.inf)
    found = jnp.isfinite(jnp.min(candidates, axis=1))
    columns = jnp.where(found, jnp.argmin(candidates, axis=1), 3 * rows + 2)
    return images[columns], found
