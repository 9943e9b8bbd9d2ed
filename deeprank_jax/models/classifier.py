"""A trunk with a linear classifier, for the first of the paper's two stages."""

from flax import nnx
import jax
import jax.numpy as jnp

from deeprank_jax.models import layers
from deeprank_jax.models.trunks.base import Trunk

Array = jax.Array


class Classifier(nnx.Module):
    """Maps uint8 images to a logit per class."""

    def __init__(
        self,
        trunk: Trunk,
        *,
        num_classes: int,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Creates the network around a trunk.

        Args:
          trunk: Trunk, from `[B, H, W, 3]` to `[B, trunk.num_features]`.
          num_classes: Number of classes.
          dtype: Type of the trunk's pixels; the linear map computes in float32.
          rngs: Keys of the initial parameters.
        """
        self.trunk = trunk
        self.head = nnx.Linear(
            trunk.num_features, num_classes, dtype=jnp.float32, rngs=rngs
        )
        self._dtype = dtype

    def features(self, images: Array, key: Array | None = None) -> Array:
        """Maps uint8 `[B, H, W, 3]` to the trunk's features, `[B, num_features]`."""
        pixels = layers.trunk_pixels(self.trunk, images, self._dtype)
        return self.trunk(pixels, key)

    def embed(self, images: Array) -> Array:
        """Maps uint8 `[B, H, W, 3]` to unit vectors, float32 `[B, num_features]`."""
        return layers.l2_normalize(self.features(images))

    def __call__(self, images: Array, key: Array | None = None) -> Array:
        """Maps uint8 `[B, H, W, 3]` to logits, float32 `[B, num_classes]`."""
        return self.head(self.features(images, key))
