"""Average precision of the batch, from soft histograms of the distances."""

from typing import Any

import jax
import jax.numpy as jnp

from deeprank_jax.losses.pairs import PairLoss, Pairs

Array = jax.Array


def fast_ap_loss(
    similarities: Array,
    is_positive: Array,
    is_negative: Array,
    *,
    num_bins: int = 10,
) -> Array:
    r"""One less a smooth average precision of ranking the batch by distance.

    .. math::
      1 - \frac1{|P|} \sum_q \frac{h^+_q H^+_q}{H_q}

    where :math:`h^+_q` is the number of positives in bin :math:`q` of the squared
    distance, :math:`H^+_q` that up to it, and :math:`H_q` that of positives and
    negatives. An image is shared by the two bins whose centres it lies between.

    Args:
      similarities: `[..., M]` float cosine similarities of an anchor and `M` images.
      is_positive: `[..., M]` bool, mask of the anchor's positives.
      is_negative: `[..., M]` bool, mask of its negatives.
      num_bins: Number of bins of the squared distance from 0 to 4, besides one more.

    Returns:
      `[...]` losses in [0, 1]; 0 for an anchor without positives.

    References:
      Cakir et al., Deep Metric Learning to Rank, 2019,
      https://openaccess.thecvf.com/content_CVPR_2019/html/Cakir_Deep_Metric_Learning_to_Rank_CVPR_2019_paper.html.
    """
    places = jnp.clip(2.0 - 2.0 * similarities, 0.0, 4.0) * num_bins / 4.0

    def count(bin_index: Array) -> tuple[Array, Array]:
        share = jax.nn.relu(1.0 - jnp.abs(places - bin_index))
        positives = jnp.sum(jnp.where(is_positive, share, 0.0), axis=-1)
        both = jnp.sum(jnp.where(is_positive | is_negative, share, 0.0), axis=-1)
        return positives, both

    # A bin at a time, so that memory does not grow with their number.
    bins = jnp.arange(num_bins + 1, dtype=similarities.dtype)
    positives, both = jax.lax.map(jax.checkpoint(count), bins)
    positives_so_far, so_far = jnp.cumsum(positives, axis=0), jnp.cumsum(both, axis=0)
    precision = jnp.where(so_far > 0, positives_so_far / jnp.maximum(so_far, 1e-9), 0.0)
    num_positives = jnp.sum(is_positive, axis=-1)
    average = jnp.sum(positives * precision, axis=0) / jnp.maximum(num_positives, 1)
    return jnp.where(num_positives > 0, 1.0 - average, 0.0)


class FastAP(PairLoss):
    """Loss of average precision: `fast_ap_loss`."""

    def __init__(self, *, num_bins: int = 10, memory_size: int = 0, **context: Any):
        """Creates the loss; `PairLoss` has the other arguments.

        Args:
          num_bins: Number of bins of the squared distance.
          memory_size: Number of embeddings of earlier batches that are compared, too.
          **context: Arguments of `PairLoss`.

        Raises:
          ValueError: There are fewer than two bins.
        """
        super().__init__(memory_size=memory_size, **context)
        if num_bins < 2:
            raise ValueError(f"num_bins must be at least 2, got {num_bins}.")
        self._num_bins = num_bins

    def row_losses(self, pairs: Pairs) -> Array:
        """Returns the losses `[R, T]`, one per threshold."""
        return fast_ap_loss(
            pairs.similarities,
            pairs.is_positive,
            pairs.is_negative,
            num_bins=self._num_bins,
        )

    def describe(self) -> str:
        """Returns the loss and its number of bins."""
        return f"FastAP, {self._num_bins} bins"
