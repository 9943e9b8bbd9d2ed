"""Supervised contrastive loss."""

from typing import Any

import jax

from deeprank_jax.losses.pairs import PairLoss, Pairs, masked_logsumexp, masked_mean

Array = jax.Array


def supcon_loss(
    similarities: Array,
    is_positive: Array,
    is_negative: Array,
    *,
    temperature: float = 0.1,
) -> Array:
    r"""Cross entropy of each positive among all positives and negatives.

    .. math::
      -\frac1{|P|} \sum_{p \in P}
      \ln \frac{e^{s_p / \tau}}{\sum_{k \in P \cup N} e^{s_k / \tau}}

    With a single positive it is InfoNCE.

    Args:
      similarities: `[..., M]` float cosine similarities of an anchor and `M` images.
      is_positive: `[..., M]` bool, mask of the anchor's positives.
      is_negative: `[..., M]` bool, mask of its negatives.
      temperature: Temperature `tau`, above 0.

    Returns:
      `[...]` losses; 0 for an anchor without positives.

    References:
      Khosla et al., Supervised Contrastive Learning, 2020,
      https://arxiv.org/abs/2004.11362, equation (2); its code multiplies the loss by
      the temperature over .07, which only scales the learning rate.
    """
    logits = similarities / temperature
    total = masked_logsumexp(logits, is_positive | is_negative)
    return masked_mean(total[..., None] - logits, is_positive)


class SupCon(PairLoss):
    """Supervised contrastive loss: `supcon_loss`.

    Attributes:
      title: Name of the loss in reports.
    """

    title = "supervised contrastive"

    def __init__(
        self, *, temperature: float = 0.1, memory_size: int = 0, **context: Any
    ):
        """Creates the loss; `PairLoss` has the other arguments.

        Args:
          temperature: Temperature of the softmax.
          memory_size: Number of embeddings of earlier batches that are compared, too.
          **context: Arguments of `PairLoss`.

        Raises:
          ValueError: The temperature is not positive.
        """
        super().__init__(memory_size=memory_size, **context)
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}.")
        self._temperature = temperature

    def row_losses(self, pairs: Pairs) -> Array:
        """Returns the losses `[R, T]`, one per threshold."""
        return supcon_loss(
            pairs.similarities,
            pairs.is_positive,
            pairs.is_negative,
            temperature=self._temperature,
        )

    def describe(self) -> str:
        """Returns the loss and its temperature."""
        return f"{self.title}, temperature {self._temperature:g}"
