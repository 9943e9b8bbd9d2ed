"""Losses and triplet selection: pure functions of arrays.

`make_loss` puts them together as the config asks, into one function from the
embeddings of a batch to a loss for each triplet.
"""

from collections.abc import Callable
import functools
from typing import Protocol

import jax
import jax.numpy as jnp

from deeprank_jax.losses.batch import Images, Picked, gather_images, pick
from deeprank_jax.losses.selection import is_less_relevant
from deeprank_jax.losses.triplet import triplet_hinge_loss, triplet_soft_margin_loss

Array = jax.Array
PickFn = Callable[..., Picked]

NEGATIVES = ("sampled", "semi_hard", "distance_weighted", "batch_hard")


class LossFn(Protocol):
    """The loss of a batch, by triplet."""

    def __call__(
        self, embeddings: Array, attributes: Array, *, step: Array | int, key: Array
    ) -> Array:
        """Returns `[B]` losses.

        Args:
          embeddings: `[B, 3, D]` float, anchor, positive and negative.
          attributes: `[B, 3, A]`, theirs.
          step: `[]` int, how many steps the run has made.
          key: random key of the step, the same on all devices.
        """
        ...


def make_loss(
    *,
    margin: float,
    negatives: str,
    symmetric: bool,
    relevance_fn: Callable[[Array, Array], Array],
    min_relevance_gap: float,
    soft_margin: bool = False,
    warmup_steps: int = 0,
    axis_name: str | None = None,
) -> LossFn:
    """Returns `loss_fn(embeddings, attributes, *, step, key) -> losses [B]`.

    Args:
      margin: the hinge's gap, in squared distance; a soft margin has none.
      negatives: `"sampled"` uses each triplet's own negative, as the paper does;
        `"semi_hard"` the one that `semi_hard_negatives` finds in the batch;
        `"distance_weighted"` the one that `distance_weighted_negatives` draws; and the
        triplet's own where there is none. `"batch_hard"` is `hardest_pairs`.
      symmetric: the positive is also an anchor, with the anchor as its positive; a
        triplet's loss is then the mean of both. What is its negative is judged anew,
        and without a negative it counts 0. Not in the paper.
      relevance_fn: `Relevance.pairwise`.
      min_relevance_gap: by how much a negative must be less relevant than the
        positive; `T_r` of the paper.
      soft_margin: `triplet_soft_margin_loss` takes the place of the hinge.
      warmup_steps: for so many steps batch-hard is semi-hard, with the sampled
        positive: from random weights it collapses.
      axis_name: of the devices that search each other's images; None for one alone.

    Raises:
      ValueError: no such way to choose negatives, a margin that is not above 0, a
        warm-up that is negative or of nothing, or a gap that is not above 0 where
        negatives are judged here.
    """
    _check(margin, negatives, symmetric, min_relevance_gap, soft_margin, warmup_steps)
    judged = dict(relevance_fn=relevance_fn, min_relevance_gap=min_relevance_gap)
    directed = functools.partial(
        _directed_losses,
        triplet_loss=triplet_soft_margin_loss
        if soft_margin
        else functools.partial(triplet_hinge_loss, margin=margin),
        negatives=negatives,
        pick_fn=_make_pick(negatives, warmup_steps, **judged),
        **judged,
    )

    def loss_fn(
        embeddings: Array, attributes: Array, *, step: Array | int, key: Array
    ) -> Array:
        images = None
        if negatives != "sampled":
            # Once, and here: inside a condition devices could wait for each other.
            images = gather_images(embeddings, attributes, axis_name)
        both = [
            directed(embeddings, attributes, images, swap=swap, step=step, key=key)
            for swap in ((False, True) if symmetric else (False,))
        ]
        return sum(both) / len(both)

    return loss_fn


def _check(
    margin: float,
    negatives: str,
    symmetric: bool,
    min_relevance_gap: float,
    soft_margin: bool,
    warmup_steps: int,
) -> None:
    """Checks that there is such a loss.

    Raises:
      ValueError: there is none.
    """
    if negatives not in NEGATIVES:
        raise ValueError(
            f"config.loss.negatives is {negatives!r}; choose one of {NEGATIVES}."
        )
    if margin <= 0 and not soft_margin:
        raise ValueError(
            f"config.loss.margin must be above 0, got {margin}; for a loss without a "
            "margin set config.loss.soft_margin=True."
        )
    if warmup_steps < 0:
        raise ValueError(
            f"config.loss.warmup_steps must be at least 0, got {warmup_steps}; 0 is no "
            "warm-up."
        )
    if warmup_steps and negatives != "batch_hard":
        raise ValueError(
            f"config.loss.warmup_steps={warmup_steps} does not go with "
            f'config.loss.negatives={negatives!r}: only "batch_hard" is warmed up; set '
            "it to 0."
        )
    if (negatives != "sampled" or symmetric) and min_relevance_gap <= 0:
        raise ValueError(
            "config.sampler.min_relevance_gap must be above 0 for a symmetric loss and "
            'for all config.loss.negatives but "sampled": at 0 rounding could make a '
            "positive its negative."
        )


def _make_pick(
    negatives: str,
    warmup_steps: int,
    *,
    relevance_fn: Callable[[Array, Array], Array],
    min_relevance_gap: float,
) -> PickFn:
    """Returns `pick_fn(images, columns, positives, *, step, key) -> Picked`."""
    judged = dict(relevance_fn=relevance_fn, min_relevance_gap=min_relevance_gap)

    def pick_fn(images, columns, positives, *, step, key):
        chosen = functools.partial(pick, negatives=negatives, key=key, **judged)
        if not warmup_steps:
            return chosen(images, columns, positives)
        first = functools.partial(pick, negatives="semi_hard", **judged)
        rows = (jax.lax.stop_gradient(images), columns, positives)
        return jax.lax.cond(step < warmup_steps, first, chosen, *rows)

    return pick_fn


def _directed_losses(
    embeddings: Array,
    attributes: Array,
    images: Images | None,
    *,
    swap: bool,
    step: Array | int,
    key: Array,
    triplet_loss: Callable[..., Array],
    negatives: str,
    pick_fn: PickFn,
    relevance_fn: Callable[[Array, Array], Array],
    min_relevance_gap: float,
) -> Array:
    """Returns the losses with the anchor, or else the positive, as anchor.

    Args:
      embeddings: `[B, 3, D]`.
      attributes: `[B, 3, A]`.
      images: of all devices; None where no other image is looked at.
      swap: whether the positive is the anchor.
      step: of the run.
      key: of the step.
      triplet_loss: of anchor, positive and negative.
      negatives: as of `make_loss`.
      pick_fn: from `_make_pick`.
      relevance_fn: `Relevance.pairwise`.
      min_relevance_gap: `T_r` of the paper.
    """
    first, second, negative = jnp.moveaxis(embeddings, 1, 0)
    anchor, positive = (second, first) if swap else (first, second)
    where = None
    if swap:
        # The sampler vouches for the negative of the anchor only; without `swap` and
        # with sampled negatives the relevance is not asked.
        own = attributes[:, 1]
        relevance = relevance_fn(own, attributes[:, 2])
        positive_relevance = relevance_fn(own, attributes[:, 0])
        where = is_less_relevant(relevance, positive_relevance, min_relevance_gap)
    if images is not None:
        triplets = images.first + 3 * jnp.arange(len(embeddings))
        picked = pick_fn(
            images, triplets + int(swap), triplets + int(not swap), step=step, key=key
        )
        if negatives == "batch_hard":
            positive = images.embeddings[picked.positives]
        chosen = images.embeddings[picked.negatives]
        negative = jnp.where(picked.found[:, None], chosen, negative)
        where = where if where is None else where | picked.found
    return triplet_loss(anchor, positive, negative, where=where, reduce_fn=None)
