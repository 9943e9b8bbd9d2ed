"""Contrastive loss of pairs by their distance.

References:
  Hadsell, Chopra and LeCun, Dimensionality Reduction by Learning an Invariant Mapping,
  2006, https://doi.org/10.1109/CVPR.2006.100.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from deeprank_jax.losses.pairs import PairLoss, Pairs, masked_mean

Array = jax.Array

# Keeps the gradient of a root finite where two images coincide.
_SMALLEST = 1e-12
# Added to each difference of two embeddings of a listed pair, as in the code of
# Radenovic et al.: also coinciding images are pushed apart.
_EPSILON = 1e-6


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
    pushed = masked_mean(_pushed(distances, margin), too_near)
    return pulled + pushed


def pair_contrastive_loss(
    a: Array, b: Array, is_similar: Array, *, margin: float = 0.7
) -> Array:
    r"""Pulls similar pairs together, and pushes different ones beyond a margin.

    .. math::
      \frac{D^2}2 \text{ if similar, else } \frac{\max(0, m - D)^2}2

    with the distance :math:`D = \sqrt{\sum_i (a_i - b_i + \epsilon)^2}`.

    Args:
      a: `[..., D]` float, unit vectors of the first images.
      b: `[..., D]` float, unit vectors of the second images.
      is_similar: `[...]` bool, True for a similar pair.
      margin: Distance `m` beyond which a different pair counts no more, at most 2.

    Returns:
      `[...]` losses.

    References:
      Radenovic, Tolias and Chum, Fine-tuning CNN Image Retrieval with No Human
      Annotation, 2018, https://arxiv.org/abs/1711.02512, for margin and epsilon.
    """
    squared = jnp.sum(jnp.square(a - b + _EPSILON), axis=-1)
    # Zero, where each difference is exactly -epsilon, has no gradient.
    distances = jnp.sqrt(jnp.maximum(squared, _SMALLEST**2))
    return jnp.where(is_similar, squared / 2.0, _pushed(distances, margin))


def _pushed(distances: Array, margin: float) -> Array:
    """Returns the losses of different pairs at some distances."""
    return jnp.square(jnp.maximum(margin - distances, 0.0)) / 2.0


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
        _check_margin(margin)
        self.margin = margin

    def row_losses(self, pairs: Pairs) -> Array:
        """Returns the losses `[R, T]`, one per threshold."""
        return contrastive_loss(
            pairs.similarities, pairs.is_positive, pairs.is_negative, margin=self.margin
        )

    def describe(self) -> str:
        """Returns the loss and its margin."""
        return f"contrastive, margin {self.margin:g}"


class PairContrastive:
    """Contrastive loss of listed pairs alone: `pair_contrastive_loss`.

    It is one for `config.task.name="pairs"`: two images that are no listed pair are
    neither similar nor different.
    """

    outputs = "pairs"
    # Number of images in a group.
    num_views = 2

    def __init__(self, *, margin: float = 0.7):
        """Creates the loss.

        Args:
          margin: Distance beyond which different pairs count no more.

        Raises:
          ValueError: The margin is not a distance of two unit vectors.
        """
        _check_margin(margin)
        self.margin = margin

    def __call__(
        self,
        outputs: Array,
        batch: Mapping[str, Any],
        *,
        step: Array | int,
        key: Array,
    ) -> Array:
        """Returns the losses `[B]`, one per pair.

        Args:
          outputs: `[B, 2, D]` float, unit vectors.
          batch: Arrays of this device's share of the batch, with `is_similar [B]`
            int, 1 for a similar pair and 0 for a different one.
          step: `[]` int, number of batches before this one; not used.
          key: Random key of the step; not used.
        """
        del step, key
        a, b = jnp.moveaxis(outputs, 1, 0)
        is_similar = batch["is_similar"] > 0
        return pair_contrastive_loss(a, b, is_similar, margin=self.margin)

    def describe(self) -> str:
        """Returns the loss and its margin."""
        return f"contrastive on listed pairs, margin {self.margin:g}"


def _check_margin(margin: float) -> None:
    if not 0 < margin <= 2:
        raise ValueError(
            f"margin must be above 0 and at most 2, got {margin}: it is a distance of "
            "unit vectors."
        )
