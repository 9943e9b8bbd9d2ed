"""Pairs of a batch and their roles by relevance, for losses on all pairs.

A group holds an anchor, its positives, and maybe negatives. Anchor and positives are
its members. Each ordered pair of members that are relevant to each other is a row: the
first is compared with all images of the batch, and the second sets the threshold.
Images at least as relevant as the second are positives; images less relevant than it
by `min_relevance_gap` are negatives; those between are neither. With classes, where a
relevance is 0 or 1, these are the images of the same class and those of all others.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from deeprank_jax.losses import batch_mining
from deeprank_jax.losses.base import RelevanceFn
from deeprank_jax.losses.mining import is_as_relevant, is_less_relevant

Array = jax.Array

# In place of minus infinity, whose gradient would not be finite.
_LOWEST = -1e9


class Pairs(NamedTuple):
    """Rows of pairs: an anchor each, and all `M` images of the batch.

    Attributes:
      similarities: `[R, M]` float, cosine similarities of the unit vectors.
      is_positive: `[R, M]` bool, True where an image is a positive of the row.
      is_negative: `[R, M]` bool, True where it is a negative.
      relevance: `[R, M]` float, relevance of the images to the anchor.
      is_other: `[R, M]` bool, False where an image is the anchor itself.
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

        Raises:
          ValueError: The gap is not positive.
        """
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

    def row_losses(self, pairs: Pairs) -> Array:
        """Returns the losses `[R]`, one per row."""
        raise NotImplementedError

    def __call__(
        self,
        outputs: Array,
        batch: Mapping[str, Array],
        *,
        step: Array | int,
        key: Array,
    ) -> Array:
        """Returns the losses `[B]`, the mean of each group's rows."""
        del step, key
        images = batch_mining.gather_images(
            outputs, batch["attributes"], self._axis_name
        )
        size, num_images, _ = outputs.shape
        first, second = _member_pairs(size, num_images, self._num_members)

        def of_block(first: Array, second: Array) -> tuple[Array, Array]:
            pairs, counts = self._pairs(images, first, second)
            return jnp.where(counts, self.row_losses(pairs), 0.0), counts

        losses, counts = batch_mining.in_blocks(
            of_block,
            images.first + first,
            images.first + second,
            batch_mining.rows_per_block(images),
        )
        losses, counts = (x.reshape(len(outputs), -1) for x in (losses, counts))
        return jnp.sum(losses, axis=1) / jnp.maximum(jnp.sum(counts, axis=1), 1)

    def _pairs(
        self, images: batch_mining.Images, first: Array, second: Array
    ) -> tuple[Pairs, Array]:
        """Returns the pairs of rows, and `[R]` bool, False for irrelevant members."""
        embeddings, attributes, _ = images
        own_attributes = attributes[first]
        relevance = self._relevance_fn(own_attributes[:, None], attributes[None])
        threshold = self._relevance_fn(own_attributes, attributes[second])
        is_other = first[:, None] != jnp.arange(len(embeddings))[None]
        is_negative = is_less_relevant(
            relevance, threshold[:, None], self._min_relevance_gap
        )
        is_positive = is_as_relevant(relevance, threshold[:, None]) & ~is_negative
        # The second itself, whatever the rounding of its relevance.
        is_positive |= second[:, None] == jnp.arange(len(embeddings))[None]
        similarities = jnp.matmul(
            embeddings[first], embeddings.T, precision=jax.lax.Precision.HIGHEST
        )
        pairs = Pairs(
            similarities,
            is_positive & is_other,
            is_negative & is_other,
            relevance,
            is_other,
        )
        return pairs, threshold > 0


def _member_pairs(size: int, num_images: int, num_members: int) -> tuple[Array, Array]:
    """Returns both images of all ordered pairs of members: `[B * m * (m - 1)]` ints."""
    members = jnp.arange(num_members)
    first = jnp.repeat(members, num_members - 1)
    # The others of each, beginning with the next, so that the anchor's is its positive.
    steps = jnp.tile(1 + jnp.arange(num_members - 1), num_members)
    second = (first + steps) % num_members
    start = num_images * jnp.arange(size)[:, None]
    return (start + first[None]).reshape(-1), (start + second[None]).reshape(-1)


def masked_logsumexp(x: Array, where: Array) -> Array:
    """Returns `log(sum(exp(x)))` over the last axis of the values that count.

    Args:
      x: `[..., M]` float.
      where: `[..., M]` bool, mask of the values that count.

    Returns:
      `[...]` float; of no values a very low, finite number, with the gradient 0.
    """
    return jax.nn.logsumexp(jnp.where(where, x, _LOWEST), axis=-1)


def masked_mean(x: Array, where: Array) -> Array:
    """Returns the mean over the last axis of the values that count; of none it is 0."""
    total = jnp.sum(jnp.where(where, x, 0.0), axis=-1)
    return total / jnp.maximum(jnp.sum(where, axis=-1), 1)
