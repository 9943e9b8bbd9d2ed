"""Pairs of a batch and their roles by relevance, for losses on all pairs.

A group holds an anchor, its positives, and maybe negatives. Anchor and positives are
its members. Each member is compared with all images of the batch, and each other member
of its group that is relevant to it sets a threshold: images at least as relevant as
that one are positives; images less relevant by `min_relevance_gap` are negatives; those
between are neither. With classes, where a relevance is 0 or 1, these are the images of
the same class and those of all others.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from deeprank_jax.losses import batch_mining
from deeprank_jax.losses import memory as memory_lib
from deeprank_jax.losses.base import RelevanceFn
from deeprank_jax.losses.mining import is_as_relevant, is_less_relevant

Array = jax.Array

# In place of minus infinity, whose gradient would not be finite.
LOWEST = -1e9


class Pairs(NamedTuple):
    """Pairs of anchors and all `M` images, with `T` thresholds for each anchor.

    Attributes:
      similarities: `[R, 1, M]` float, cosine similarities of the unit vectors.
      is_positive: `[R, T, M]` bool, True where an image is a positive of a threshold.
      is_negative: `[R, T, M]` bool, True where it is a negative.
      relevance: `[R, 1, M]` float, relevance of the images to the anchor.
      is_other: `[R, 1, M]` bool, False where an image is the anchor itself, or none.
    """

    similarities: Array
    is_positive: Array
    is_negative: Array
    relevance: Array
    is_other: Array


class PairLoss:
    """A loss of each group of a batch `[B, n, D]` with `attributes [B, n, A]`.

    Subclasses define `row_losses` and `describe`. Rows are compared in blocks, so that
    memory is bounded, with the images of all devices.
    """

    outputs = "embeddings"

    def __init__(
        self,
        *,
        relevance_fn: RelevanceFn,
        min_relevance_gap: float,
        axis_name: str | None = None,
        positives_per_anchor: int = 1,
        negatives_per_anchor: int = 1,
        memory_size: int = 0,
    ):
        """Creates the loss.

        Args:
          relevance_fn: `Relevance.pairwise`.
          min_relevance_gap: Least difference in relevance between positive and
            negative; `T_r` of the paper.
          axis_name: Name of the axis of devices that share their images; None for one
            device alone.
          positives_per_anchor: Number of positives in a group, after its anchor.
          negatives_per_anchor: Number of negatives after those, which are compared
            with the members of all groups and are not anchors themselves.
          memory_size: Number of embeddings of earlier batches that are compared with
            the members, too.

        Raises:
          ValueError: The gap is not positive, or the size of the memory negative.
        """
        if memory_size < 0:
            raise ValueError(
                f"memory_size must be at least 0, got {memory_size}; 0 is no memory."
            )
        if min_relevance_gap <= 0:
            raise ValueError(
                "min_relevance_gap must be above 0 for a loss on all pairs: at 0 "
                "rounding could make a positive its own negative."
            )
        del negatives_per_anchor  # The other images of a group, whatever they are.
        self._relevance_fn = relevance_fn
        self._min_relevance_gap = min_relevance_gap
        self._axis_name = axis_name
        self._num_members = 1 + positives_per_anchor
        self._memory_size = memory_size

    def row_losses(self, pairs: Pairs) -> Array:
        """Returns the losses `[R, T]`, or `[R, 1]` if thresholds do not matter."""
        raise NotImplementedError

    def __call__(
        self,
        outputs: Array,
        batch: Mapping[str, Any],
        *,
        step: Array | int,
        key: Array,
    ) -> Array:
        """Returns the losses `[B]`, the mean of each group's rows."""
        del step, key
        images, num_used = memory_lib.with_memory(
            batch_mining.gather_images(outputs, batch["attributes"], self._axis_name),
            batch.get("memory"),
            self._memory_size,
        )
        size, num_images, _ = outputs.shape
        anchors, others = _member_pairs(size, num_images, self._num_members)

        def of_block(anchors: Array, others: Array) -> tuple[Array, Array]:
            pairs, counts = self._pairs(images, num_used, anchors, others)
            return jnp.where(counts, self.row_losses(pairs), 0.0), counts

        losses, counts = batch_mining.in_blocks(
            of_block,
            images.first + anchors,
            images.first + others,
            max(1, batch_mining.rows_per_block(images) // others.shape[1]),
        )
        losses, counts = (x.reshape(size, -1) for x in (losses, counts))
        return jnp.sum(losses, axis=1) / jnp.maximum(jnp.sum(counts, axis=1), 1)

    def _pairs(
        self,
        images: batch_mining.Images,
        num_used: Array,
        anchors: Array,
        others: Array,
    ) -> tuple[Pairs, Array]:
        """Returns the pairs of `R` anchors with all images.

        Args:
          images: All `M` images.
          num_used: `[]` int, number of the first of them that are in use.
          anchors: `[R]` int, columns of the anchors.
          others: `[R, T]` int, columns of the members that set the thresholds.

        Returns:
          The pairs, and `[R, T]` bool, False where the members are irrelevant.
        """
        embeddings, attributes, _ = images
        own_attributes = attributes[anchors][:, None]
        relevance = self._relevance_fn(own_attributes, attributes[None])[:, None]
        thresholds = self._relevance_fn(own_attributes, attributes[others])[..., None]
        columns = jnp.arange(len(embeddings))[None, None]
        is_other = (anchors[:, None, None] != columns) & (columns < num_used)
        is_negative = is_less_relevant(relevance, thresholds, self._min_relevance_gap)
        is_positive = is_as_relevant(relevance, thresholds) & ~is_negative
        # The member itself, whatever the rounding of its relevance.
        is_positive |= others[..., None] == columns
        similarities = jnp.matmul(
            embeddings[anchors], embeddings.T, precision=jax.lax.Precision.HIGHEST
        )
        pairs = Pairs(
            similarities[:, None],
            is_positive & is_other,
            is_negative & is_other,
            relevance,
            is_other,
        )
        return pairs, thresholds[..., 0] > 0


def _member_pairs(size: int, num_images: int, num_members: int) -> tuple[Array, Array]:
    """Returns the members of all groups, and the other members of each group.

    Args:
      size: Number of groups `B`.
      num_images: Number of images of a group.
      num_members: Number of its members `m`, which come first.

    Returns:
      `[B * m]` and `[B * m, m - 1]` ints, columns among the images of the groups.
    """
    members = jnp.arange(num_members)
    # Beginning with the next member, so that the anchor's is its first positive.
    others = (members[:, None] + 1 + jnp.arange(num_members - 1)[None]) % num_members
    start = num_images * jnp.arange(size)
    return (
        (start[:, None] + members[None]).reshape(-1),
        (start[:, None, None] + others[None]).reshape(-1, num_members - 1),
    )


def masked_logsumexp(x: Array, where: Array) -> Array:
    """Returns `log(sum(exp(x)))` over the last axis of the values that count.

    Args:
      x: `[..., M]` float.
      where: `[..., M]` bool, mask of the values that count.

    Returns:
      `[...]` float; of no values a very low, finite number, with the gradient 0.
    """
    return jax.nn.logsumexp(jnp.where(where, x, LOWEST), axis=-1)


def masked_mean(x: Array, where: Array) -> Array:
    """Returns the mean over the last axis of the values that count; of none it is 0."""
    total = jnp.sum(jnp.where(where, x, 0.0), axis=-1)
    return total / jnp.maximum(jnp.sum(where, axis=-1), 1)
