"""Losses and triplet selection: pure functions of arrays.

`make_loss` puts them together as the config asks, into one function from the
embeddings of a batch to a loss for each triplet.
"""

from collections.abc import Callable
import functools

import jax
import jax.numpy as jnp

from deeprank_jax.losses.selection import is_less_relevant, semi_hard_negatives
from deeprank_jax.losses.triplet import triplet_hinge_loss

Array = jax.Array
LossFn = Callable[[Array, Array], Array]

NEGATIVES = ("sampled", "semi_hard")


def make_loss(
    *,
    margin: float,
    negatives: str,
    symmetric: bool,
    relevance_fn: Callable[[Array, Array], Array],
    min_relevance_gap: float,
) -> LossFn:
    """Returns `loss_fn(embeddings [B, 3, D], attributes [B, 3, A]) -> losses [B]`.

    Args:
      margin: the hinge's gap, in squared distance.
      negatives: `"sampled"` uses each triplet's own negative, as the paper does;
        `"semi_hard"` the one that `semi_hard_negatives` finds in the batch, and the
        triplet's own where it finds none.
      symmetric: the positive is also an anchor, with the anchor as its positive; a
        triplet's loss is then the mean of both. What is its negative is judged anew,
        and without a negative it counts 0. Not in the paper.
      relevance_fn: `Relevance.pairwise`.
      min_relevance_gap: by how much a negative must be less relevant than the
        positive; `T_r` of the paper.

    Raises:
      ValueError: no such way to choose negatives, a margin that is not above 0, or a
        gap that is not above 0 where negatives are judged here.
    """
    if negatives not in NEGATIVES:
        raise ValueError(
            f"config.loss.negatives is {negatives!r}; choose one of {NEGATIVES}."
        )
    if margin <= 0:
        raise ValueError(f"config.loss.margin must be above 0, got {margin}.")
    if (negatives == "semi_hard" or symmetric) and min_relevance_gap <= 0:
        raise ValueError(
            "config.sampler.min_relevance_gap must be above 0 for semi-hard negatives "
            "and a symmetric loss: at 0 rounding could make a positive its negative."
        )

    directed = functools.partial(
        _directed_losses,
        margin=margin,
        negatives=negatives,
        relevance_fn=relevance_fn,
        min_relevance_gap=min_relevance_gap,
    )

    def loss_fn(embeddings: Array, attributes: Array) -> Array:
        losses = directed(embeddings, attributes, swap=False)
        if symmetric:
            losses = (losses + directed(embeddings, attributes, swap=True)) / 2.0
        return losses

    return loss_fn


def _directed_losses(
    embeddings: Array,
    attributes: Array,
    *,
    swap: bool,
    margin: float,
    negatives: str,
    relevance_fn: Callable[[Array, Array], Array],
    min_relevance_gap: float,
) -> Array:
    """Returns the losses with the anchor, or else the positive, as anchor."""
    first, second, negative = jnp.moveaxis(embeddings, 1, 0)
    anchor, positive = (second, first) if swap else (first, second)
    if negatives == "sampled" and not swap:
        # The sampler vouches for it all: the relevance is not asked.
        return triplet_hinge_loss(
            anchor, positive, negative, margin=margin, reduce_fn=None
        )
    own = attributes[:, int(swap)]
    positive_relevance = relevance_fn(own, attributes[:, 1 - int(swap)])
    where = None
    if swap:
        # The sampler vouches for the negative of the anchor only.
        relevance = relevance_fn(own, attributes[:, 2])
        where = is_less_relevant(relevance, positive_relevance, min_relevance_gap)
    if negatives == "semi_hard":
        images = embeddings.reshape(-1, embeddings.shape[-1])
        all_attributes = attributes.reshape(-1, attributes.shape[-1])
        columns, found = semi_hard_negatives(
            anchor,
            positive,
            images,
            positive_relevance=positive_relevance,
            relevance=relevance_fn(own[:, None], all_attributes[None]),
            min_relevance_gap=min_relevance_gap,
        )
        negative = jnp.where(found[:, None], images[columns], negative)
        where = where if where is None else where | found
    return triplet_hinge_loss(
        anchor, positive, negative, margin=margin, where=where, reduce_fn=None
    )
