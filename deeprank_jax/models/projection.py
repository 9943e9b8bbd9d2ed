"""A ranking network with a projection head, for losses without labels.

The head is trained with the network and left out of its embeddings.

References:
  Chen et al., A Simple Framework for Contrastive Learning of Visual Representations,
  2020, https://arxiv.org/abs/2002.05709, section 4.2.
"""

import itertools
from typing import Any, NamedTuple

from flax import nnx
import jax
import jax.numpy as jnp

from deeprank_jax.models import layers
from deeprank_jax.models.multiscale import MultiScale
from deeprank_jax.models.trunks.base import Trunk

Array = jax.Array


class HeadSizes(NamedTuple):
    """Sizes of a projection head.

    Attributes:
      num_layers: Number of linear maps; 1 for a linear head.
      width: Width between two of them.
      dim: Length of a projection.
      batch_norm: True for BatchNorm before each ReLU.
    """

    num_layers: int = 2
    width: int = 512
    dim: int = 128
    batch_norm: bool = True


class ProjectionHead(nnx.Module):
    """Maps unit vectors to others by linear maps with ReLU between, in float32."""

    def __init__(
        self,
        num_features: int,
        sizes: HeadSizes,
        *,
        axis_name: str | None = None,
        rngs: nnx.Rngs,
    ):
        """Creates the head.

        Args:
          num_features: Length `F` of the vectors.
          sizes: Sizes of the head.
          axis_name: Name of the mapped axis over which BatchNorm averages, if any.
          rngs: Keys of the initial parameters.
        """
        widths = [sizes.width] * (sizes.num_layers - 1)
        self.norms = nnx.List(
            [
                layers.BatchNorm(width, momentum=0.9, axis_name=axis_name, rngs=rngs)
                for width in widths
                if sizes.batch_norm
            ]
        )
        ends = [num_features, *widths, sizes.dim]
        self.linears = nnx.List(
            [
                nnx.Linear(*pair, dtype=jnp.float32, rngs=rngs)
                for pair in itertools.pairwise(ends)
            ]
        )

    def __call__(self, embeddings: Array) -> Array:
        """Maps unit vectors `[B, F]` to unit vectors `[B, dim]`."""
        # Entries of about 1, as an initial weight expects.
        x = embeddings * embeddings.shape[-1] ** 0.5
        for i, linear in enumerate(self.linears):
            x = linear(x)
            if i < len(self.linears) - 1:
                if self.norms:
                    # As images of one pixel.
                    x = self.norms[i](x[:, None, None])[:, 0, 0]
                x = nnx.relu(x)
        return layers.l2_normalize(x)


class Projected(MultiScale):
    """Maps images to projections in training, and to the embeddings before the head.

    Attributes:
      head: The projection head.
    """

    def __init__(
        self,
        trunk: Trunk,
        *,
        head: HeadSizes,
        axis_name: str | None = None,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        """Creates the network around a trunk; `MultiScale` has the other arguments.

        Args:
          trunk: Trunk, as in `MultiScale`.
          head: Sizes of the head.
          axis_name: Name of the mapped axis, if any.
          rngs: Keys of the initial parameters; those of the network without its head
            are the same as of `MultiScale`.
          **options: Arguments of `MultiScale`.

        Raises:
          ValueError: As `MultiScale`.
        """
        super().__init__(trunk, axis_name=axis_name, rngs=rngs, **options)
        self.head = ProjectionHead(
            self.embedding_dim, head, axis_name=axis_name, rngs=rngs
        )

    def __call__(self, images: Array, key: Array | None = None) -> Array:
        """Maps uint8 `[B, H, W, 3]` to projections, unit vectors `[B, dim]`."""
        return self.head(super().__call__(images, key))

    def embed_once(self, images: Array) -> Array:
        """Maps images to unit vectors before the head, `[B, embedding_dim]`."""
        return super().__call__(images)
