"""Contrast of each pair with all less relevant pairs: the graded form of SupCon."""

from typing import Any

import jax
import jax.numpy as jnp

from deeprank_jax.losses.pairs import LOWEST, Pairs
from deeprank_jax.losses.supcon import SupCon

Array = jax.Array

# Relative: relevances of a batch that differ by rounding alone are the same.
_SLACK = 1e-6


def rank_n_contrast_loss(
    similarities: Array,
    relevance: Array,
    is_other: Array,
    *,
    temperature: float = 0.1,
    relevance_power: float = 1.0,
) -> Array:
    r"""Cross entropy of each relevant image among those that are no more relevant.

    .. math::
      -\frac1{\sum_j r_j^\gamma} \sum_j r_j^\gamma
      \ln \frac{e^{s_j / \tau}}{\sum_{k: r_k \le r_j} e^{s_k / \tau}}

    over the relevances :math:`r` of the other images. Where they are 0 or 1 it is
    `supcon_loss`. They are sorted and summed up, so that memory is `[..., M]`.

    Args:
      similarities: `[..., M]` float cosine similarities of an anchor and `M` images.
      relevance: `[..., M]` float, at least 0, relevance of the images to the anchor.
      is_other: `[..., M]` bool, False where an image is the anchor itself.
      temperature: Temperature `tau`, above 0.
      relevance_power: Exponent `gamma` of the weights, above 0; below 1 it raises those
        of images of low relevance, of which there are many.

    Returns:
      `[...]` losses; 0 for an anchor to which nothing is relevant.

    References:
      Zha et al., Rank-N-Contrast: Learning Continuous Representations for Regression,
      2023, https://arxiv.org/abs/2210.01189; there all pairs weigh the same, and
      similarity is the negative Euclidean distance.
    """
    order = jnp.argsort(relevance, axis=-1)
    sort = lambda x: jnp.take_along_axis(x, order, axis=-1)
    logits = jnp.where(is_other, similarities / temperature, LOWEST)
    sums = jax.lax.cumlogsumexp(sort(logits), axis=relevance.ndim - 1)
    ends = _run_ends(sort(relevance))
    # The sum up to the last of those that are as relevant, at its place in the batch.
    totals = jnp.take_along_axis(sums, ends, axis=-1)
    totals = jnp.take_along_axis(totals, jnp.argsort(order, axis=-1), axis=-1)
    is_relevant = is_other & (relevance > 0)
    # The root of 0 has an infinite gradient.
    powers = jnp.where(is_relevant, relevance, 1.0) ** relevance_power
    weights = jnp.where(is_relevant, powers, 0.0)
    weighted = weights * jnp.where(is_other, totals - logits, 0.0)
    total_weight = jnp.sum(weights, axis=-1)
    return jnp.sum(weighted, axis=-1) / jnp.where(total_weight > 0, total_weight, 1.0)


def _run_ends(values: Array) -> Array:
    """Returns the place of the last value as large as each, of ascending `[..., M]`."""
    size, axis = values.shape[-1], values.ndim - 1
    rises = values[..., 1:] > values[..., :-1] * (1.0 + _SLACK)
    is_last = jnp.concatenate([rises, jnp.ones_like(rises[..., :1])], axis=-1)
    places = jax.lax.broadcasted_iota(jnp.int32, values.shape, axis)
    return jax.lax.cummin(jnp.where(is_last, places, size), axis=axis, reverse=True)


class RankNContrast(SupCon):
    """Graded contrastive loss: `rank_n_contrast_loss`."""

    title = "Rank-N-Contrast"

    def __init__(
        self,
        *,
        temperature: float = 0.1,
        relevance_power: float = 1.0,
        memory_size: int = 0,
        **context: Any,
    ):
        """Creates the loss; `PairLoss` has the other arguments.

        Args:
          temperature: Temperature of the softmax.
          relevance_power: Exponent of the relevances as weights.
          memory_size: Number of embeddings of earlier batches that are compared, too.
          **context: Arguments of `PairLoss`.

        Raises:
          ValueError: The temperature or the exponent is not positive.
        """
        super().__init__(temperature=temperature, memory_size=memory_size, **context)
        if not relevance_power > 0:
            raise ValueError(f"relevance_power must be above 0, got {relevance_power}.")
        self._relevance_power = relevance_power

    def row_losses(self, pairs: Pairs) -> Array:
        """Returns the losses `[R, 1]`, one per anchor."""
        return rank_n_contrast_loss(
            pairs.similarities,
            pairs.relevance,
            pairs.is_other,
            temperature=self._temperature,
            relevance_power=self._relevance_power,
        )
