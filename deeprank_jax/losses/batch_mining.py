"""In-batch mining across devices.

Each device keeps its own anchors and sees the images of all devices, so that it holds
no more than its anchors by all images, and no more than `PAIRS` of these at a time.
The result does not depend on how the batch is distributed over devices.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp

from deeprank_jax.losses.base import RelevanceFn

Array = jax.Array
T = TypeVar("T")

# 16 MiB as float32; some five such matrices are alive at once.
PAIRS = 2**22
# 128 MiB, where XLA does not fuse the `[B, M, A]` that a relevance broadcasts to: on
# CPU it splits a sum of more than 32 values, as a kernel of vectors is.
_COMPARED = 2**25


class Images(NamedTuple):
    """All images of the batch, in the order of its triplets.

    Attributes:
      embeddings: `[M, D]` float embeddings.
      attributes: `[M, A]` attributes, compared by the relevance.
      first: `[]` int, row of the first image of this device.
    """

    embeddings: Array
    attributes: Array
    first: Array


class Anchors(NamedTuple):
    """A block of anchors, and the relevance of all `M` images to each.

    Attributes:
      embeddings: `[B, D]` float embeddings.
      columns: `[B]` int, columns of the anchors among the images.
      positives: `[B]` int, columns of their positives.
      positive_relevance: `[B]` float, relevance of each positive to its anchor.
      relevance: `[B, M]` float, relevance of each image to each anchor.
    """

    embeddings: Array
    columns: Array
    positives: Array
    positive_relevance: Array
    relevance: Array


class Mined(NamedTuple):
    """Images in place of the sampled ones, as columns of `Images`.

    Attributes:
      positives: `[B]` int, columns of the positives.
      negatives: `[B]` int, columns of the negatives.
      has_negative: `[B]` bool, False where no image is a negative and its column is
        meaningless.
    """

    positives: Array
    negatives: Array
    has_negative: Array


class Miner(Protocol):
    """Chooses negatives, and maybe positives, among the images of a batch.

    Attributes:
      mines_positives: True if the positives are mined, too.
      warmup: Number of first steps in which another miner takes its place, and that
        miner; None for no warm-up.
    """

    mines_positives: bool
    warmup: "tuple[int, Miner] | None"

    def __call__(
        self, anchors: Anchors, images: Array, *, min_relevance_gap: float, key: Array
    ) -> Mined:
        """Returns the images of each anchor's triplet.

        Args:
          anchors: Block of `B` anchors.
          images: `[M, D]` float, embeddings of all images of the batch.
          min_relevance_gap: `T_r` of the paper's equation (8), above 0.
          key: Random key of the step, the same on all devices.
        """
        ...


def gather_images(
    embeddings: Array, attributes: Array, axis_name: str | None
) -> Images:
    """Returns the images of all devices; gradients flow back to their own device.

    A device's gradient is then that of the sum of all devices' losses, so that the
    mean over devices is the gradient of the mean loss, as it is without gathering.

    Args:
      embeddings: `[B, 3, D]` float, embeddings of this device.
      attributes: `[B, 3, A]`, attributes of this device.
      axis_name: Name of the devices' axis; None for this device alone.
    """
    own_images = tuple(x.reshape(-1, x.shape[-1]) for x in (embeddings, attributes))
    if axis_name is None:
        return Images(*own_images, first=jnp.int32(0))
    first = jax.lax.axis_index(axis_name) * len(own_images[0])
    gathered = jax.lax.all_gather(own_images, axis_name, tiled=True)
    return Images(*gathered, first=first)


def mine(
    images: Images,
    columns: Array,
    positives: Array,
    *,
    miner: Miner,
    relevance_fn: RelevanceFn,
    min_relevance_gap: float,
    key: Array,
) -> Mined:
    """Mines the images of each triplet, a block of anchors at a time.

    Args:
      images: All `M` images of the batch.
      columns: `[B]` int, columns of the anchors.
      positives: `[B]` int, columns of their positives.
      miner: Miner of one block.
      relevance_fn: `Relevance.pairwise`.
      min_relevance_gap: `T_r` of the paper's equation (8), above 0.
      key: Random key of the step.
    """
    images = jax.lax.stop_gradient(images)
    embeddings, attributes, _ = images

    def of_block(columns: Array, positives: Array) -> Mined:
        anchor_attributes = attributes[columns]
        anchors = Anchors(
            embeddings[columns],
            columns,
            positives,
            relevance_fn(anchor_attributes, attributes[positives]),
            relevance_fn(anchor_attributes[:, None], attributes[None]),
        )
        return miner(anchors, embeddings, min_relevance_gap=min_relevance_gap, key=key)

    return in_blocks(of_block, columns, positives, rows_per_block(images))


def rows_per_block(images: Images) -> int:
    """Returns the number of anchors that are compared with all images at a time."""
    pairs = min(PAIRS, _COMPARED // images.attributes.shape[-1])
    return max(1, pairs // len(images.embeddings))


def in_blocks(
    fn: Callable[[Array, Array], T], columns: Array, positives: Array, most: int
) -> T:
    """Returns `fn(columns, positives)`, computed for at most `most` rows at a time."""
    size = len(columns)
    if size <= most:
        return fn(columns, positives)
    num_blocks = -(-size // most)
    block = -(-size // num_blocks)
    # The padding stands for the first image, and is cut off again.
    padding = num_blocks * block - size
    blocks = [
        jnp.pad(x, ((0, padding), *((0, 0),) * (x.ndim - 1))).reshape(
            num_blocks, block, *x.shape[1:]
        )
        for x in (columns, positives)
    ]
    # For a gradient each block is computed again, so that only one is in memory.
    results = jax.lax.map(jax.checkpoint(lambda rows: fn(*rows)), blocks)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:size], results)
