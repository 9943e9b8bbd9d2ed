"""Contrastive loss of pairs by their distance."""

from typing import Any

import jax
import jax.numpy as jnp

from deeprank_jax.losses.pairs import PairLoss, Pairs, masked_mean

Array = jax.Array

# Keeps the gradient of a root finite where two images coincide.
_SMALLEST = 1e-12


def contrastive_loss(
    similarities: Array,
    is_positive: Array,
    is_negative: Array,
    *,
    margin: float = 0.7,
) -> Array:
    r"""Pulls positives together, and pushes negatives beyond a margin.

    .. math::
      \frac1{|P|} \sum_p \frac{D_p^2}2
      + \frac1{|N'|} \sum_{n \in N'} \frac{\max(0, m - D_n)^2}2

    with the Euclidean distance :math:`D` and the negatives :math:`N'` that lie within
    the margin: most others do, and would drown them.

    Args:
      similarities: `[..., M]` float cosine similarities of an anchor and `M` images,
        unit vectors.
      is_positive: `[..., M]` bool, mask of the anchor's positives.
      is_negative: `[..., M]` bool, mask of its negatives.
      margin: Distance `m` beyond which negatives count no more, at most 2.

    Returns:
      `[...]` losses.

    References:
      Hadsell, Chopra and LeCun, Dimensionality Reduction by Learning an Invariant
      Mapping, 2006, https://doi.org/10.1109/CVPR.2006.100; there the sum over pairs.
    """
    squared = jnp.maximum(2.0 - 2.0 * similarities, _SMALLEST)
    distances = jnp.sqrt(squared)
    pulled = masked_mean(squared / 2.0, is_positive)
    too_near = is_negative & (distances < margin)
    pushed = masked_mean(jnp.square(margin - distances) / 2.0, too_near)
    return pulled + pushed


class Contrastive(PairLoss):
    """Contrastive loss: `contrastive_loss`."""

    def __init__(self, *, margin: float = 0.7, memory_size: int = 0, **context: Any):
        """Creates the loss; `PairLoss` has the other arguments.

        Args:
          margin: Distance beyond which negatives count no more.
          memory_size: Number of embeddings of earlier batches that are compared, too.
          **context: Arguments of `PairLoss`.

        Raises:
          ValueError: The margin is not a distance of two unit vectors.
        """
        super().__init__(memory_size=memory_size, **context)
        if not 0 < margin <= 2:
            raise ValueError(
                f"margin must be above 0 and at most 2, got {margin}: it is a distance "
                "of unit vectors."
            )
        self.margin = margin

    def row_losses(self, pairs: Pairs) -> Array:
        """Returns the losses `[R, T]`, one per threshold."""
        return contrastive_loss(
            pairs.similarities, pairs.is_positive, pairs.is_negative, margin=self.margin
        )

    def describe(self) -> str:
        """Returns the loss and its margin."""
        return f"contrastive, margin {self.margin:g}"
