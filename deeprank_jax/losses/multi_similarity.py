"""Multi-similarity loss with its miner."""

from typing import Any

import jax
import jax.numpy as jnp

from deeprank_jax.losses.pairs import PairLoss, Pairs, masked_logsumexp

Array = jax.Array


def multi_similarity_loss(
    similarities: Array,
    is_positive: Array,
    is_negative: Array,
    *,
    alpha: float = 2.0,
    beta: float = 50.0,
    base: float = 0.5,
    epsilon: float = 0.1,
) -> Array:
    r"""Soft positive and negative pairs, of those that are informative.

    .. math::
      \frac1\alpha \ln(1 + \sum_p e^{-\alpha (s_p - \lambda)})
      + \frac1\beta \ln(1 + \sum_n e^{\beta (s_n - \lambda)})

    over the negatives with :math:`s_n > \min_p s_p - \epsilon` and the positives with
    :math:`s_p < \max_n s_n + \epsilon`.

    Args:
      similarities: `[..., M]` float cosine similarities of an anchor and `M` images.
      is_positive: `[..., M]` bool, mask of the anchor's positives.
      is_negative: `[..., M]` bool, mask of its negatives.
      alpha: Sharpness of the positives, above 0.
      beta: Sharpness of the negatives, above 0.
      base: Similarity `lambda` about which both are weighted.
      epsilon: Slack of the miner; `inf` keeps all pairs.

    Returns:
      `[...]` losses; 0 for an anchor without a positive or a negative, or whose pairs
      the miner leaves out.

    References:
      Wang et al., Multi-Similarity Loss with General Pair Weighting for Deep Metric
      Learning, 2019, https://arxiv.org/abs/1904.06627.
    """
    fixed = jax.lax.stop_gradient(similarities)
    farthest = jnp.min(jnp.where(is_positive, fixed, jnp.inf), axis=-1, keepdims=True)
    nearest = jnp.max(jnp.where(is_negative, fixed, -jnp.inf), axis=-1, keepdims=True)
    negatives = is_negative & (fixed > farthest - epsilon)
    positives = is_positive & (fixed < nearest + epsilon)
    of_positives = masked_logsumexp(-alpha * (similarities - base), positives)
    of_negatives = masked_logsumexp(beta * (similarities - base), negatives)
    losses = (
        jax.nn.softplus(of_positives) / alpha + jax.nn.softplus(of_negatives) / beta
    )
    has_both = jnp.any(positives, axis=-1) & jnp.any(negatives, axis=-1)
    return jnp.where(has_both, losses, 0.0)


class MultiSimilarity(PairLoss):
    """Multi-similarity loss: `multi_similarity_loss`."""

    def __init__(
        self,
        *,
        alpha: float = 2.0,
        beta: float = 50.0,
        base: float = 0.5,
        epsilon: float = 0.1,
        memory_size: int = 0,
        **context: Any,
    ):
        """Creates the loss; `PairLoss` has the other arguments.

        Args:
          alpha: Sharpness of the positives.
          beta: Sharpness of the negatives.
          base: Similarity about which both are weighted.
          epsilon: Slack of the miner.
          memory_size: Number of embeddings of earlier batches that are compared, too.
          **context: Arguments of `PairLoss`.

        Raises:
          ValueError: A sharpness is not positive.
        """
        super().__init__(memory_size=memory_size, **context)
        for name, value in {"alpha": alpha, "beta": beta}.items():
            if not value > 0:
                raise ValueError(f"{name} must be above 0, got {value}.")
        self._options = dict(alpha=alpha, beta=beta, base=base, epsilon=epsilon)

    def row_losses(self, pairs: Pairs) -> Array:
        """Returns the losses `[R, T]`, one per threshold."""
        return multi_similarity_loss(
            pairs.similarities, pairs.is_positive, pairs.is_negative, **self._options
        )

    def describe(self) -> str:
        """Returns the loss and its sharpness."""
        options = self._options
        return f"multi-similarity, {options['alpha']:g} and {options['beta']:g}"
