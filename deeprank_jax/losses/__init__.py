"""Losses and triplet selection: pure functions of arrays.

`make_loss` puts them together as the config asks, into one function from the
embeddings of a batch to a loss for each triplet.
"""

from collections.abc import Callable
import functools
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from deeprank_jax.losses.batch_mining import gather_images, pick
from deeprank_jax.losses.mining import is_less_relevant
from deeprank_jax.losses.triplet import triplet_hinge_loss, triplet_soft_margin_loss

Array = jax.Array

NEGATIVES = ("sampled", "semi_hard", "distance_weighted", "batch_hard")


class StandIns(NamedTuple):
    """Embeddings in the place of the sampled ones.

    Attributes:
      positives: `[B, D]`; None keeps the sampled ones.
      negatives: `[B, D]`.
      found: `[B]` bool, False keeps the sampled negative.
    """

    positives: Array | None
    negatives: Array
    found: Array


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
    pick_fn = _make_pick(negatives, warmup_steps, **judged)
    hinge = functools.partial(triplet_hinge_loss, margin=margin)
    directed = functools.partial(
        _directed_losses,
        triplet_loss=triplet_soft_margin_loss if soft_margin else hinge,
        **judged,
    )

    def loss_fn(
        embeddings: Array, attributes: Array, *, step: Array | int, key: Array
    ) -> Array:
        stand_ins = None, None
        if negatives != "sampled":
            # Once, and here: inside a condition devices could wait for each other.
            images = gather_images(embeddings, attributes, axis_name)
            size, directions = len(embeddings), 2 if symmetric else 1
            stand_ins = pick_fn(images, size, directions, step=step, key=key)
        losses = directed(embeddings, attributes, stand_ins[0], swap=False)
        if symmetric:
            swapped = directed(embeddings, attributes, stand_ins[1], swap=True)
            losses = (losses + swapped) / 2.0
        return losses

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
) -> Callable[..., list[StandIns]]:
    """Returns `pick_fn(images, size, directions, *, step, key) -> stand-ins of each`.

    In the first direction the anchors of `size` triplets are anchors, in the second
    their positives.
    """
    judged = dict(relevance_fn=relevance_fn, min_relevance_gap=min_relevance_gap)

    def pick_fn(images, size, directions, *, step, key):
        first = images.first + 3 * jnp.arange(size)
        # Both at once: apart, XLA would keep what they share, of size [B, M, A].
        columns = jnp.concatenate([first, first + 1][:directions])
        positives = jnp.concatenate([first + 1, first][:directions])
        chosen = functools.partial(pick, negatives=negatives, key=key, **judged)
        rows = (jax.lax.stop_gradient(images), columns, positives)
        if warmup_steps:
            early = functools.partial(pick, negatives="semi_hard", key=key, **judged)
            picked = jax.lax.cond(step < warmup_steps, early, chosen, *rows)
        else:
            picked = chosen(*rows)
        return [
            StandIns(
                images.embeddings[picked.positives[part]]
                if negatives == "batch_hard"
                else None,
                images.embeddings[picked.negatives[part]],
                picked.found[part],
            )
            for part in (slice(size), slice(size, None))[:directions]
        ]

    return pick_fn


def _directed_losses(
    embeddings: Array,
    attributes: Array,
    stand_ins: StandIns | None,
    *,
    swap: bool,
    triplet_loss: Callable[..., Array],
    relevance_fn: Callable[[Array, Array], Array],
    min_relevance_gap: float,
) -> Array:
    """Returns the losses with the anchor, or else the positive, as anchor.

    Args:
      embeddings: `[B, 3, D]`.
      attributes: `[B, 3, A]`.
      stand_ins: for the sampled images; None where no others are looked at.
      swap: whether the positive is the anchor.
      triplet_loss: of anchor, positive and negative.
      relevance_fn: `Relevance.pairwise`.
      min_relevance_gap: `T_r` of the paper.
    """
    first, second, negative = jnp.moveaxis(embeddings, 1, 0)
    anchor, positive = (second, first) if swap else (first, second)
    where = None
    if swap:
        # The sampler vouches for the negative of the anchor only. Otherwise, with
        # sampled negatives, the relevance is not asked.
        own = attributes[:, 1]
        relevance = relevance_fn(own, attributes[:, 2])
        positive_relevance = relevance_fn(own, attributes[:, 0])
        where = is_less_relevant(relevance, positive_relevance, min_relevance_gap)
    if stand_ins is not None:
        found = stand_ins.found
        negative = jnp.where(found[:, None], stand_ins.negatives, negative)
        positive = positive if stand_ins.positives is None else stand_ins.positives
        where = where if where is None else where | found
    return triplet_loss(anchor, positive, negative, where=where, reduce_fn=None)
