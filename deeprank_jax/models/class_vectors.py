"""Learned vectors of the classes, with which images are compared in training."""

from typing import Any, NamedTuple

from flax import nnx
import jax
import jax.numpy as jnp

from deeprank_jax.models import layers
from deeprank_jax.models.multiscale import MultiScale
from deeprank_jax.models.trunks.base import Trunk

Array = jax.Array


class ClassCount(NamedTuple):
    """Number of classes, and of the vectors of each.

    Attributes:
      num_classes: Number of classes `C`.
      sub_centers: Number of vectors of a class.
    """

    num_classes: int
    sub_centers: int = 1


class ClassVectors(nnx.Linear):
    """Cosines of images to classes: to the nearest vector of each class.

    With several vectors of a class, images with a wrong label or of a rare look gather
    at one of them, and do not pull at the others.

    References:
      Deng et al., Sub-center ArcFace: Boosting Face Recognition by Large-scale Noisy
      Web Faces, 2020, https://doi.org/10.1007/978-3-030-58621-8_43.
    """

    def __init__(self, num_features: int, classes: ClassCount, *, rngs: nnx.Rngs):
        """Creates the vectors.

        Args:
          num_features: Length `F` of the vectors.
          classes: Number of classes, and of the vectors of each.
          rngs: Keys of the initial vectors.
        """
        super().__init__(
            num_features,
            classes.num_classes * classes.sub_centers,
            use_bias=False,
            dtype=jnp.float32,
            rngs=rngs,
        )
        self._sub_centers = classes.sub_centers

    def __call__(self, embeddings: Array) -> Array:  # ty: ignore
        """Maps unit vectors `[B, F]` to cosines `[B, C]`."""
        cosines = jnp.matmul(
            embeddings,
            layers.l2_normalize(self.kernel[...].T).T,
            precision=jax.lax.Precision.HIGHEST,
        )
        if self._sub_centers == 1:
            return cosines
        return cosines.reshape(len(cosines), -1, self._sub_centers).max(axis=-1)


class CosineClassifier(MultiScale):
    """Maps images to cosines in training, and to the embeddings before the vectors.

    Attributes:
      head: The vectors of the classes.
    """

    def __init__(
        self, trunk: Trunk, *, classes: ClassCount, rngs: nnx.Rngs, **options: Any
    ):
        """Creates the network around a trunk; `MultiScale` has the other arguments.

        Args:
          trunk: Trunk, as in `MultiScale`.
          classes: Number of classes, and of the vectors of each.
          rngs: Keys of the initial parameters; those of the network without the vectors
            are the same as of `MultiScale`.
          **options: Arguments of `MultiScale`.

        Raises:
          ValueError: As `MultiScale`.
        """
        super().__init__(trunk, rngs=rngs, **options)
        self.head = ClassVectors(self.embedding_dim, classes, rngs=rngs)

    def __call__(self, images: Array, key: Array | None = None) -> Array:
        """Maps uint8 `[B, H, W, 3]` to cosines `[B, num_classes]`."""
        return self.head(super().__call__(images, key))

    def embed_once(self, images: Array) -> Array:
        """Maps images to unit vectors, `[B, embedding_dim]`."""
        return super().__call__(images)
