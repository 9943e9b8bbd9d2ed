"""Losses and triplet selection: pure functions of arrays.

`create_loss` puts them together as the config asks, into one function from the
embeddings of a batch to a loss for each triplet.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from deeprank_jax.losses.selection import semi_hard_negatives
from deeprank_jax.losses.triplet import triplet_hinge_loss

Array = jax.Array
LossFn = Callable[[Array, Array], Array]

NEGATIVES = ("sampled", "semi_hard")


def create_loss(
    *,
    margin: float,
    negatives: str,
    relevance_fn: Callable[[Array, Array], Array],
    min_relevance_gap: float,
) -> LossFn:
    """Returns `loss_fn(embeddings [B, 3, D], attributes [B, 3, A]) -> losses [B]`.

    Args:
      margin: the hinge's gap, in squared distance.
      negatives: `"sampled"` uses each triplet's own negative, as the paper does;
        `"semi_hard"` the one that `semi_hard_negatives` picks from the batch.
      relevance_fn: `Relevance.pairwise`.
      min_relevance_gap: by how much a negative must be less relevant than the
        positive; `T_r` of the paper.

    Raises:
      ValueError: no such way to choose negatives, a margin that is not above 0, or a
        gap that is not above 0 with semi-hard negatives.
    """
    if negatives not in NEGATIVES:
        raise ValueError(
            f"config.loss.negatives is {negatives!r}; choose one of {NEGATIVES}."
        )
    if margin <= 0:
        raise ValueError(f"config.loss.margin must be above 0, got {margin}.")
    if negatives == "semi_hard" and min_relevance_gap <= 0:
        raise ValueError(
            "config.sampler.min_relevance_gap must be above 0 for semi-hard negatives: "
            "at 0 a positive would do as its own negative."
        )

    def loss_fn(embeddings: Array, attributes: Array) -> Array:
        anchor, positive, negative = jnp.moveaxis(embeddings, 1, 0)
        if negatives == "semi_hard":
            images = attributes.reshape(-1, attributes.shape[-1])
            relevance = relevance_fn(attributes[:, 0, None], images[None])
            negative, _ = semi_hard_negatives(
                embeddings, relevance, min_relevance_gap=min_relevance_gap
            )
        return triplet_hinge_loss(
            anchor, positive, negative, margin=margin, reduce_fn=None
        )

    return loss_fn
