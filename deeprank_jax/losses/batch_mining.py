"""Where are a triplet's stand-ins looked for? Among the images of all devices.

Each device keeps its own anchors and sees everybody's images, so that it holds no more
than its anchors by all images, and no more than `_PAIRS` of these at a time. What it
picks does not depend on how the batch is dealt to devices.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from deeprank_jax.losses import mining

Array = jax.Array
RelevanceFn = Callable[[Array, Array], Array]

# 16 MiB as float32; some five such matrices are alive at once.
_PAIRS = 2**22
# 128 MiB, where XLA does not fuse what a relevance broadcasts to `[B, M, A]`: on CPU it
# splits a sum of more than 32 values, as a kernel of vectors is.
_COMPARED = 2**25


class Images(NamedTuple):
    """All images of the batch, in the order of its triplets.

    Attributes:
      embeddings: `[M, D]` float.
      attributes: `[M, A]`.
      first: `[]` int, which of them is the first of this device.
    """

    embeddings: Array
    attributes: Array
    first: Array


class Picked(NamedTuple):
    """What stands in for the sampled images, as columns of `Images`.

    Attributes:
      positives: `[B]` int.
      negatives: `[B]` int.
      found: `[B]` bool, False where no image is a negative and its column means
        nothing.
    """

    positives: Array
    negatives: Array
    found: Array


def gather_images(
    embeddings: Array, attributes: Array, axis_name: str | None
) -> Images:
    """Returns the images of all devices; gradients go back to whose they are.

    A device's gradient is then that of the sum of all devices' losses, so that the
    mean over devices is the gradient of the mean loss, as it is without gathering.

    Args:
      embeddings: `[B, 3, D]` float, this device's.
      attributes: `[B, 3, A]`, this device's.
      axis_name: of the devices' axis; None for this device alone.
    """
    own = tuple(x.reshape(-1, x.shape[-1]) for x in (embeddings, attributes))
    if axis_name is None:
        return Images(*own, first=jnp.int32(0))
    first = jax.lax.axis_index(axis_name) * len(own[0])
    return Images(*jax.lax.all_gather(own, axis_name, tiled=True), first=first)


def pick(
    images: Images,
    columns: Array,
    positives: Array,
    *,
    negatives: str,
    relevance_fn: RelevanceFn,
    min_relevance_gap: float,
    key: Array,
) -> Picked:
    """Picks the stand-ins of each triplet, a block of anchors at a time.

    Args:
      images: `M` images.
      columns: `[B]` int, which of them are the anchors.
      positives: `[B]` int, which are their positives.
      negatives: `"semi_hard"`, `"distance_weighted"` or `"batch_hard"`.
      relevance_fn: `Relevance.pairwise`.
      min_relevance_gap: `T_r` of the paper's equation (8), above 0.
      key: random key of the step; only `"distance_weighted"` needs one.
    """
    images = jax.lax.stop_gradient(images)
    embeddings, attributes, _ = images

    def of_block(columns: Array, positives: Array) -> Picked:
        anchors, own = embeddings[columns], attributes[columns]
        judged = dict(
            positive_relevance=relevance_fn(own, attributes[positives]),
            relevance=relevance_fn(own[:, None], attributes[None]),
            min_relevance_gap=min_relevance_gap,
        )
        if negatives == "batch_hard":
            return Picked(
                *mining.hardest_pairs(
                    anchors,
                    embeddings,
                    columns=columns,
                    positive_columns=positives,
                    **judged,
                )
            )
        if negatives == "distance_weighted":
            # Of the image, so that its draw is the same on whichever device it is.
            keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, columns)
            found = mining.distance_weighted_negatives(
                keys, anchors, embeddings, columns=columns, **judged
            )
        else:
            found = mining.semi_hard_negatives(
                anchors, embeddings[positives], embeddings, **judged
            )
        return Picked(positives, *found)

    pairs = min(_PAIRS, _COMPARED // attributes.shape[-1])
    return _in_blocks(of_block, columns, positives, max(1, pairs // len(embeddings)))


def _in_blocks(
    fn: Callable[[Array, Array], Picked], columns: Array, positives: Array, most: int
) -> Picked:
    """Returns `fn(columns, positives)`, computed for at most `most` rows at a time."""
    size = len(columns)
    if size <= most:
        return fn(columns, positives)
    num_blocks = -(-size // most)
    block = -(-size // num_blocks)
    # What is added stands for the first image, and is cut off again.
    blocks = [
        jnp.pad(x, (0, num_blocks * block - size)).reshape(num_blocks, block)
        for x in (columns, positives)
    ]
    picked = jax.lax.map(lambda rows: fn(*rows), blocks)
    return jax.tree.map(lambda x: x.reshape(-1)[:size], picked)
