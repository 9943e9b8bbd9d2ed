"""Memory of the embeddings of earlier batches, as more images to compare with.

References:
  Wang et al., Cross-Batch Memory for Embedding Learning, 2020,
  https://arxiv.org/abs/1912.06798.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from deeprank_jax.losses.batch_mining import Images, gather_images

Array = jax.Array
# Arrays `embeddings [M, D]`, `attributes [M, A]`, and `[]` int32 `filled`, the number
# of rows in use; the newest come first.
Memory = Mapping[str, Array]


def create_memory(
    size: int, embedding_dim: int, attributes: np.ndarray
) -> dict[str, Array]:
    """Returns an empty memory.

    Args:
      size: Number of embeddings `M`; 0 gives no arrays, which is no memory.
      embedding_dim: Length of an embedding.
      attributes: `[N, A]`, attributes of some records, for their number and type.
    """
    if not size:
        return {}
    return {
        "embeddings": jnp.zeros((size, embedding_dim), jnp.float32),
        "attributes": jnp.zeros((size, attributes.shape[1]), attributes.dtype),
        "filled": jnp.int32(0),
    }


def remember(
    memory: Memory, embeddings: Array, attributes: Array, axis_name: str | None
) -> dict[str, Array]:
    """Returns the memory after a batch, whose images replace the oldest.

    Args:
      memory: Memory before the batch.
      embeddings: `[B, n, D]` float, embeddings of this device.
      attributes: `[B, n, A]`, attributes of this device.
      axis_name: Name of the devices' axis, all of which remember the same images; None
        for this device alone.
    """
    images = gather_images(jax.lax.stop_gradient(embeddings), attributes, axis_name)
    size = len(memory["embeddings"])
    join = lambda new, old: jnp.concatenate([new, old])[:size]
    return {
        "embeddings": join(images.embeddings, memory["embeddings"]),
        "attributes": join(images.attributes, memory["attributes"]),
        "filled": jnp.minimum(memory["filled"] + len(images.embeddings), size),
    }


def with_memory(
    images: Images, memory: Memory | None, size: int
) -> tuple[Images, Array]:
    """Returns the images of a batch followed by those of a memory, and their number.

    Args:
      images: Images of the batch.
      memory: Memory; None or without arrays for none.
      size: Number of its images, the newest, that are taken at most.

    Returns:
      All images, and `[]` int32, the number of the first of them that are in use.
    """
    num_images = len(images.embeddings)
    if not memory or not size:
        return images, jnp.int32(num_images)
    joined = Images(
        jnp.concatenate([images.embeddings, memory["embeddings"][:size]]),
        jnp.concatenate([images.attributes, memory["attributes"][:size]]),
        images.first,
    )
    return joined, num_images + jnp.minimum(memory["filled"], size)
