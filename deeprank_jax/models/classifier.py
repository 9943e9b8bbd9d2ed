"""A trunk with a classifier, for the first of the paper's two stages."""

from flax import nnx
import jax
import jax.numpy as jnp

from deeprank_jax.models import layers
from deeprank_jax.models.class_vectors import ClassCount, ClassVectors
from deeprank_jax.models.trunks.base import Trunk
from deeprank_jax.models.whitening import create_whitening

Array = jax.Array


class Classifier(nnx.Module):
    """Maps uint8 images to a logit or a cosine per class, maybe with features."""

    def __init__(
        self,
        trunk: Trunk,
        *,
        num_classes: int,
        outputs: str = "logits",
        sub_centers: int = 1,
        embed_prefix: int = 0,
        whitening_power: float = 0.0,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Creates the network around a trunk.

        Args:
          trunk: Trunk, from `[B, H, W, 3]` to `[B, trunk.num_features]`.
          num_classes: Number of classes.
          outputs: Kind of output: `"logits"` of a linear map with bias, `"cosines"` of
            the features and the nearest vector of each class, or
            `"logits_and_features"`.
          sub_centers: Number of vectors of a class, for `"cosines"`.
          embed_prefix: Number of first numbers that `embed` keeps; 0 for all.
          whitening_power: Power of the whitening of `embed`, once it is fitted; 0 for
            none.
          dtype: Type of the trunk's pixels; the linear map computes in float32.
          rngs: Keys of the initial parameters.

        Raises:
          ValueError: The prefix or the power is out of range.
        """
        self.trunk = trunk
        self.head = (
            ClassVectors(
                trunk.num_features, ClassCount(num_classes, sub_centers), rngs=rngs
            )
            if outputs == "cosines"
            else nnx.Linear(
                trunk.num_features, num_classes, dtype=jnp.float32, rngs=rngs
            )
        )
        layers.check_prefix(embed_prefix, trunk.num_features)
        self._outputs, self._embed_prefix = outputs, embed_prefix
        self.whitening = create_whitening(whitening_power, trunk.num_features)
        self._dtype = dtype

    def features(self, images: Array, key: Array | None = None) -> Array:
        """Maps uint8 `[B, H, W, 3]` to the trunk's features, `[B, num_features]`."""
        pixels = layers.trunk_pixels(self.trunk, images, self._dtype)
        return self.trunk(pixels, key)

    def embed_once(self, images: Array) -> Array:
        """Maps images as `embed`, but to all numbers, and not whitened."""
        return layers.l2_normalize(self.features(images))

    def embed(self, images: Array) -> Array:
        """Maps uint8 `[B, H, W, 3]` to unit vectors, float32 `[B, num_features]`.

        With `embed_prefix` only as many of their first numbers are kept.
        """
        embeddings = self.embed_once(images)
        if self.whitening is not None:
            embeddings = self.whitening(embeddings)
        return layers.shorten(embeddings, self._embed_prefix)

    def __call__(self, images: Array, key: Array | None = None) -> Array:
        """Maps uint8 `[B, H, W, 3]` to logits or cosines, `[B, num_classes]`.

        With `"logits_and_features"` the features follow the logits.
        """
        features = self.features(images, key)
        if self._outputs == "cosines":
            return self.head(layers.l2_normalize(features))
        logits = self.head(features)
        if self._outputs == "logits":
            return logits
        return jnp.concatenate([logits, features.astype(jnp.float32)], axis=-1)
