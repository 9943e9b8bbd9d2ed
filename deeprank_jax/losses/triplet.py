"""Ranking losses over triplets of embeddings.

Every loss is a pure function of arrays. The last axis holds the embedding, all
leading axes are batch axes, and `where` marks the triplets that count.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Array = jax.Array
ReduceFn = Callable[..., Array]


def squared_distance(x: Array, y: Array) -> Array:
    """Returns `||x - y||^2` over the last axis: `[..., D], [..., D] -> [...]`."""
    return jnp.sum(jnp.square(x - y), axis=-1)


def triplet_hinge_loss(
    anchor: Array,
    positive: Array,
    negative: Array,
    *,
    margin: float = 0.2,
    where: Array | None = None,
    reduce_fn: ReduceFn | None = jnp.mean,
) -> Array:
    r"""Hinge on the gap between the distances to negative and positive.

    .. math::
      \ell(a, p, n) = \max(0, m + \|a - p\|_2^2 - \|a - n\|_2^2)

    Args:
      anchor: `[..., D]` float embeddings, usually unit length.
      positive: `[..., D]`, same shape as `anchor`.
      negative: `[..., D]`, same shape as `anchor`.
      margin: Margin `m`, in squared distance; unit vectors lie at most 4 apart.
      where: optional `[...]` bool, mask of the triplets that count; None counts all.
      reduce_fn: Reduction, called with `(losses, where=...)`; None returns the
        unreduced losses, with 0 where a triplet does not count.

    Returns:
      A scalar, or `[...]` if `reduce_fn` is None. The mean of no triplets is 0.

    Raises:
      ValueError: The three embeddings differ in shape.

    References:
      Wang et al., Learning Fine-grained Image Similarity with Deep Ranking, 2014,
      https://arxiv.org/abs/1404.4661.
    """
    gap = _distance_gap(anchor, positive, negative)
    return _safe_reduce(jax.nn.relu(margin + gap), where, reduce_fn)


def triplet_soft_margin_loss(
    anchor: Array,
    positive: Array,
    negative: Array,
    *,
    where: Array | None = None,
    reduce_fn: ReduceFn | None = jnp.mean,
) -> Array:
    r"""Smooth form of the hinge, without a margin: every triplet stays active.

    .. math::
      \ell(a, p, n) = \ln(1 + \exp(\|a - p\|_2^2 - \|a - n\|_2^2))

    Args:
      anchor: `[..., D]` float embeddings, usually unit length.
      positive: `[..., D]`, same shape as `anchor`.
      negative: `[..., D]`, same shape as `anchor`.
      where: optional `[...]` bool, mask of the triplets that count; None counts all.
      reduce_fn: Reduction, called with `(losses, where=...)`; None returns the
        unreduced losses, with 0 where a triplet does not count.

    Returns:
      A scalar, or `[...]` if `reduce_fn` is None. The mean of no triplets is 0.

    Raises:
      ValueError: The three embeddings differ in shape.

    References:
      Hermans et al., In Defense of the Triplet Loss for Person Re-Identification,
      2017, https://arxiv.org/abs/1703.07737; there of distances, here of their squares.
    """
    gap = _distance_gap(anchor, positive, negative)
    return _safe_reduce(jax.nn.softplus(gap), where, reduce_fn)


def _distance_gap(anchor: Array, positive: Array, negative: Array) -> Array:
    """Returns how much farther the positive lies than the negative, squared."""
    if not anchor.shape == positive.shape == negative.shape:
        raise ValueError(
            "anchor, positive and negative must share one shape, got "
            f"{anchor.shape}, {positive.shape} and {negative.shape}."
        )
    return squared_distance(anchor, positive) - squared_distance(anchor, negative)


def _safe_reduce(
    losses: Array, where: Array | None, reduce_fn: ReduceFn | None
) -> Array:
    """Reduces `losses`, giving 0 rather than NaN when nothing counts."""
    if where is None:
        return losses if reduce_fn is None else reduce_fn(losses)
    losses = jnp.where(where, losses, 0.0)
    if reduce_fn is None:
        return losses
    # The mean of no losses is 0 / 0.
    return jnp.where(jnp.any(where), reduce_fn(losses, where=where), 0.0)
