"""Diagnostics of a batch of embeddings: spread and effective rank."""

import jax
import jax.numpy as jnp

Array = jax.Array


def mean_squared_distance(embeddings: Array) -> Array:
    """Returns the mean `||x_i - x_j||^2` over all ordered pairs: `[N, D] -> []`.

    Unit vectors spread evenly give 2, one point gives 0.
    """
    centered = embeddings - jnp.mean(embeddings, axis=0, keepdims=True)
    return 2.0 * jnp.mean(jnp.sum(jnp.square(centered), axis=-1))


def effective_rank(embeddings: Array) -> Array:
    r"""Returns the number of directions that carry the variance: `[N, D] -> []`.

    .. math::
      (\sum_i \lambda_i)^2 / \sum_i \lambda_i^2

    over the eigenvalues of the covariance: 1 for points on a line, `D` for a ball, 0
    for a single point. Computed from the smaller of the `[N, N]` and the `[D, D]`
    matrix of products, which share them. Also called the participation ratio.
    """
    centered = embeddings - jnp.mean(embeddings, axis=0, keepdims=True)
    if len(centered) > centered.shape[1]:
        centered = centered.T
    gram = jnp.matmul(centered, centered.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.square(jnp.trace(gram)) / jnp.maximum(
        jnp.sum(jnp.square(gram)), jnp.finfo(gram.dtype).tiny
    )
