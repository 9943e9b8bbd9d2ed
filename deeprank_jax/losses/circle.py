"""Circle loss, whose pairs weigh more the farther they are from their optimum."""

from typing import Any

import jax

from deeprank_jax.losses.pairs import PairLoss, Pairs, masked_logsumexp

Array = jax.Array


def circle_loss(
    similarities: Array,
    is_positive: Array,
    is_negative: Array,
    *,
    gamma: float = 80.0,
    margin: float = 0.4,
) -> Array:
    r"""Soft margin between similarities of negatives and positives, self-paced.

    .. math::
      \ln(1 + \sum_n e^{\gamma \alpha_n (s_n - m)}
      \sum_p e^{-\gamma \alpha_p (s_p - 1 + m)}), \quad
      \alpha_n = \max(0, s_n + m), \quad \alpha_p = \max(0, 1 + m - s_p)

    without a gradient through the weights :math:`\alpha`.

    Args:
      similarities: `[..., M]` float32 cosine similarities of an anchor and `M` images.
      is_positive: `[..., M]` bool, mask of the anchor's positives.
      is_negative: `[..., M]` bool, mask of its negatives.
      gamma: Scale, above 0.
      margin: Margin `m`, in (0, 1).

    Returns:
      `[...]` losses; about 0 for an anchor without a positive or a negative.

    References:
      Sun et al., Circle Loss: A Unified Perspective of Pair Similarity Optimization,
      2020, https://arxiv.org/abs/2002.10857, equations (6) to (8).
    """
    fixed = jax.lax.stop_gradient(similarities)
    of_negatives = gamma * jax.nn.relu(fixed + margin) * (similarities - margin)
    of_positives = -gamma * jax.nn.relu(1.0 + margin - fixed)
    of_positives = of_positives * (similarities - 1.0 + margin)
    return jax.nn.softplus(
        masked_logsumexp(of_negatives, is_negative)
        + masked_logsumexp(of_positives, is_positive)
    )


class Circle(PairLoss):
    """Circle loss: `circle_loss`."""

    def __init__(
        self,
        *,
        gamma: float = 80.0,
        margin: float = 0.4,
        memory_size: int = 0,
        **context: Any,
    ):
        """Creates the loss; `PairLoss` has the other arguments.

        Args:
          gamma: Scale of the similarities.
          margin: Margin of the similarities.
          memory_size: Number of embeddings of earlier batches that are compared, too.
          **context: Arguments of `PairLoss`.

        Raises:
          ValueError: An option is out of its range.
        """
        super().__init__(memory_size=memory_size, **context)
        if not gamma > 0:
            raise ValueError(f"gamma must be above 0, got {gamma}.")
        if not 0 < margin < 1:
            raise ValueError(f"margin must be above 0 and below 1, got {margin}.")
        self._options = dict(gamma=gamma, margin=margin)

    def row_losses(self, pairs: Pairs) -> Array:
        """Returns the losses `[R, T]`, one per threshold."""
        return circle_loss(
            pairs.similarities, pairs.is_positive, pairs.is_negative, **self._options
        )

    def describe(self) -> str:
        """Returns the loss, its scale and its margin."""
        options = self._options
        return f"circle, scale {options['gamma']:g}, margin {options['margin']:g}"
