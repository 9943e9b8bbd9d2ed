"""Triplet losses of a batch: mining, both directions, and the loss of each triplet."""

from collections.abc import Callable, Mapping
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from deeprank_jax.losses import batch_mining
from deeprank_jax.losses.base import RelevanceFn
from deeprank_jax.losses.miners import Sampled, SemiHard
from deeprank_jax.losses.mining import is_less_relevant
from deeprank_jax.losses.triplet import triplet_hinge_loss, triplet_soft_margin_loss

Array = jax.Array


class _MinedImages(NamedTuple):
    """Embeddings in place of the sampled ones.

    Attributes:
      positives: `[B, D]`; None keeps the sampled ones.
      negatives: `[B, D]`.
      has_negative: `[B]` bool, False keeps the sampled negative.
    """

    positives: Array | None
    negatives: Array
    has_negative: Array


class _TripletLoss:
    """A loss of the triplets of a batch `[B, n, D]` with `attributes [B, n, A]`.

    A group of more images than three is taken apart: its triplet `t` has positive
    `t % P` and negative `t % N`, and its loss is the mean of theirs.
    """

    outputs = "embeddings"
    _triplet_loss: Callable[..., Array]

    def __init__(
        self,
        *,
        symmetric: bool = False,
        miner: batch_mining.Miner | None = None,
        relevance_fn: RelevanceFn,
        min_relevance_gap: float,
        axis_name: str | None = None,
        positives_per_anchor: int = 1,
        negatives_per_anchor: int = 1,
    ):
        """Creates the loss.

        Args:
          symmetric: True makes the positive an anchor, too, with the anchor as its
            positive; a triplet's loss is then the mean of both directions. Its negative
            is checked again; a direction without a negative counts 0. Not in the paper.
          miner: Miner of negatives, and maybe positives, in the batch.
          relevance_fn: `Relevance.pairwise`.
          min_relevance_gap: Least difference in relevance between positive and
            negative; `T_r` of the paper.
          axis_name: Name of the axis of devices that search each other's images; None
            for one device alone.
          positives_per_anchor: Number of positives `P` in a group.
          negatives_per_anchor: Number of negatives `N` in a group, after those.

        Raises:
          ValueError: The gap is not positive though negatives are judged here, or
            groups have no negative.
        """
        if not negatives_per_anchor:
            raise ValueError(
                "negatives_per_anchor must be at least 1 for a loss of triplets, got "
                '0; a loss on all pairs, e.g. "multi_similarity", takes 0.'
            )
        self._num_others = positives_per_anchor, negatives_per_anchor
        self._symmetric = symmetric
        self._miner = miner or SemiHard()
        self._mines = not isinstance(self._miner, Sampled)
        self._axis_name = axis_name
        self._judge = dict(
            relevance_fn=relevance_fn, min_relevance_gap=min_relevance_gap
        )
        if (self._mines or symmetric) and min_relevance_gap <= 0:
            raise ValueError(
                "min_relevance_gap must be above 0 for a symmetric loss and for every "
                'miner but "sampled": at 0 rounding could make a positive its negative.'
            )

    def __call__(
        self,
        outputs: Array,
        batch: Mapping[str, Array],
        *,
        step: Array | int,
        key: Array,
    ) -> Array:
        """Returns the losses `[B]`, one per group."""
        attributes = batch["attributes"]
        num_groups = len(outputs)
        outputs, attributes = (self._triplets(x) for x in (outputs, attributes))
        mined = None, None
        if self._mines:
            # Once, and here: inside a condition devices could wait for each other.
            images = batch_mining.gather_images(outputs, attributes, self._axis_name)
            mined = self._mine(images, len(outputs), step, key)
        losses = self._directed(outputs, attributes, mined[0], swap=False)
        if self._symmetric:
            swapped = self._directed(outputs, attributes, mined[1], swap=True)
            losses = (losses + swapped) / 2.0
        if len(losses) == num_groups:
            return losses
        return jnp.mean(losses.reshape(num_groups, -1), axis=1)

    def _triplets(self, groups: Array) -> Array:
        """Returns groups `[B, n, ...]` as triplets `[B * T, 3, ...]`."""
        if self._num_others == (1, 1):
            return groups
        num_positives, num_negatives = self._num_others
        triplet = jnp.arange(max(self._num_others))
        positive = 1 + triplet % num_positives
        negative = 1 + num_positives + triplet % num_negatives
        columns = jnp.stack([0 * triplet, positive, negative], axis=1)
        return groups[:, columns].reshape(-1, 3, groups.shape[-1])

    def _mine(
        self, images: batch_mining.Images, size: int, step: Array | int, key: Array
    ) -> list[_MinedImages]:
        """Returns the mined images of each direction.

        In the first direction the anchors of `size` triplets are anchors, in the second
        their positives.
        """
        num_directions = 2 if self._symmetric else 1
        first = images.first + 3 * jnp.arange(size)
        # Both at once: apart, XLA would keep what they share, of size [B, M, A].
        columns = jnp.concatenate([first, first + 1][:num_directions])
        positives = jnp.concatenate([first + 1, first][:num_directions])
        rows = (jax.lax.stop_gradient(images), columns, positives)
        mine = functools.partial(
            batch_mining.mine, miner=self._miner, key=key, **self._judge
        )
        if self._miner.warmup:
            num_steps, early_miner = self._miner.warmup
            early = functools.partial(
                batch_mining.mine, miner=early_miner, key=key, **self._judge
            )
            mined = jax.lax.cond(step < num_steps, early, mine, *rows)
        else:
            mined = mine(*rows)
        return [
            _MinedImages(
                images.embeddings[mined.positives[part]]
                if self._miner.mines_positives
                else None,
                images.embeddings[mined.negatives[part]],
                mined.has_negative[part],
            )
            for part in (slice(size), slice(size, None))[:num_directions]
        ]

    def _directed(
        self,
        embeddings: Array,
        attributes: Array,
        mined: _MinedImages | None,
        *,
        swap: bool,
    ) -> Array:
        """Returns the losses `[B]` of one direction.

        Args:
          embeddings: `[B, 3, D]`.
          attributes: `[B, 3, A]`.
          mined: Images in place of the sampled ones; None without mining.
          swap: True makes the positive the anchor.
        """
        first, second, negative = jnp.moveaxis(embeddings, 1, 0)
        anchor, positive = (second, first) if swap else (first, second)
        where = None
        if swap or self._num_others != (1, 1):
            # The sampler has checked the negative for the anchor of a triplet only; in
            # a larger group it may be that of another positive.
            anchor_attributes = attributes[:, 1] if swap else attributes[:, 0]
            relevance_fn = self._judge["relevance_fn"]
            relevance = relevance_fn(anchor_attributes, attributes[:, 2])
            positive_attributes = attributes[:, 0] if swap else attributes[:, 1]
            positive_relevance = relevance_fn(anchor_attributes, positive_attributes)
            where = is_less_relevant(
                relevance, positive_relevance, self._judge["min_relevance_gap"]
            )
        if mined is not None:
            has_negative = mined.has_negative
            negative = jnp.where(has_negative[:, None], mined.negatives, negative)
            positive = positive if mined.positives is None else mined.positives
            where = where if where is None else where | has_negative
        return self._triplet_loss(
            anchor, positive, negative, where=where, reduce_fn=None
        )


class TripletHinge(_TripletLoss):
    """The paper's loss, a hinge on the gap of squared distances.

    References:
      Wang et al., Learning Fine-grained Image Similarity with Deep Ranking, 2014,
      https://arxiv.org/abs/1404.4661.
    """

    def __init__(
        self,
        *,
        margin: float = 0.2,
        symmetric: bool = False,
        miner: batch_mining.Miner | None = None,
        **context: Any,
    ):
        """Creates the loss.

        Args:
          margin: Gap between the two squared distances; unit vectors lie at most 4
            apart.
          symmetric: True makes the positive an anchor, too.
          miner: Miner of negatives, and maybe positives, in the batch.
          **context: Other arguments of `_TripletLoss`.

        Raises:
          ValueError: The margin is not positive, or as for `_TripletLoss`.
        """
        super().__init__(symmetric=symmetric, miner=miner, **context)
        if not margin > 0:
            raise ValueError(
                f"margin must be above 0, got {margin}; a loss without a margin is "
                '"triplet_soft_margin".'
            )
        self.margin = margin
        self._triplet_loss = functools.partial(triplet_hinge_loss, margin=margin)

    def describe(self) -> str:
        """Returns the loss and its margin."""
        return f"hinge, margin {self.margin:g}"


class TripletSoftMargin(_TripletLoss):
    """Softplus in place of the hinge: `triplet.triplet_soft_margin_loss`."""

    _triplet_loss = staticmethod(triplet_soft_margin_loss)

    def describe(self) -> str:
        """Returns the loss."""
        return "soft margin"
