"""The paper's network: a deep trunk and shallow low-resolution paths, side by side.

The trunk sees what an object is and forgets how it looks; the shallow paths see the
whole picture coarsely and keep its looks. A linear map joins both.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from deeprank_jax.models import cpu_ops, layers

Array = jax.Array

_PATH_OPTIONS = ("subsample", "kernel", "stride", "width", "pool", "pool_stride")


class LowResolutionPath(nnx.Module):
    """Subsample, one strided convolution, max-pool, flatten."""

    def __init__(
        self,
        *,
        image_size: int,
        subsample: int,
        kernel: int,
        stride: int,
        width: int,
        pool: int,
        pool_stride: int,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        """Creates the path.

        Args:
          image_size: height and width of what the whole network sees, in pixels.
          subsample: how many times smaller the path sees it, a whole number.
          kernel: height and width of the convolution.
          stride: of the convolution.
          width: its channels.
          pool: height and width of the max-pooling.
          pool_stride: of the max-pooling.
          dtype: what the convolution computes in.
          rngs: keys of the initial parameters.
        """
        self.conv = nnx.Conv(
            3, width, (kernel, kernel), strides=stride, dtype=dtype, rngs=rngs
        )
        self._subsample, self._pool, self._pool_stride = subsample, pool, pool_stride
        size = image_size
        for divisor in (subsample, stride, pool_stride):
            size = -(-size // divisor)
        self.num_features = size * size * width

    def __call__(self, images: Array) -> Array:
        """Maps `[B, H, W, 3]` floats to `[B, num_features]`."""
        x = nnx.relu(self.conv(layers.subsample(images, self._subsample)))
        x = cpu_ops.max_pool(x, window=self._pool, stride=self._pool_stride)
        return x.reshape(x.shape[0], -1)


class MultiScale(nnx.Module):
    """Maps uint8 images to unit embeddings.

    References:
      Wang et al., Learning Fine-grained Image Similarity with Deep Ranking, 2014,
      https://arxiv.org/abs/1404.4661, figure 3.
    """

    def __init__(
        self,
        trunk: Any,
        *,
        image_size: int,
        embedding_dim: int,
        paths: Sequence[Mapping[str, int]] = (),
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Creates the network around a trunk.

        Args:
          trunk: a module from `[B, H, W, 3]` to `[B, trunk.num_features]`, which says
            in `pixel_mean` and `pixel_scale` what it takes pixels as.
          image_size: height and width of the images, in pixels.
          embedding_dim: the length of an embedding.
          paths: options of each `LowResolutionPath`; none is the single-scale network.
          dtype: what the paths compute in; the linear map computes in float32.
          rngs: keys of the initial parameters.

        Raises:
          ValueError: an option of a path is missing, unknown or out of its range.
        """
        self.trunk = trunk
        _check_paths(paths)
        self.paths = nnx.List(
            [
                LowResolutionPath(image_size=image_size, dtype=dtype, rngs=rngs, **path)
                for path in paths
            ]
        )
        self.embedding = nnx.Linear(
            trunk.num_features + sum(path.num_features for path in self.paths),
            embedding_dim,
            # Rounded to bfloat16, near embeddings would be one.
            dtype=jnp.float32,
            rngs=rngs,
        )
        self._dtype = dtype

    def __call__(self, images: Array, key: Array | None = None) -> Array:
        """Maps uint8 images to unit vectors.

        Args:
          images: `[B, H, W, 3]` uint8.
          key: of what the trunk drops in training; None drops nothing.

        Returns:
          `[B, embedding_dim]` float32.
        """
        pixels = layers.trunk_pixels(self.trunk, images, self._dtype)
        joined = [layers.l2_normalize(self.trunk(pixels, key))]
        if self.paths:
            # All shallow paths share one normalisation, as in figure 3.
            shallow = jnp.concatenate([path(pixels) for path in self.paths], axis=-1)
            joined.append(layers.l2_normalize(shallow))
        return layers.l2_normalize(self.embedding(jnp.concatenate(joined, axis=-1)))

    def embed(self, images: Array) -> Array:
        """Maps uint8 `[B, H, W, 3]` to unit vectors, float32 `[B, embedding_dim]`."""
        return self(images)

    def features(self, images: Array) -> Array:
        """Maps uint8 `[B, H, W, 3]` to what the trunk says, `[B, num_features]`."""
        return self.trunk(layers.trunk_pixels(self.trunk, images, self._dtype))


def _check_paths(paths: Sequence[Mapping[str, int]]) -> None:
    """Checks that each path has its options and no others.

    Raises:
      ValueError: one is missing, unknown or out of its range.
    """
    for i, path in enumerate(paths):
        where = f"config.model.paths[{i}]"
        for wrong, verb in (
            ([name for name in path if name not in _PATH_OPTIONS], "has"),
            ([name for name in _PATH_OPTIONS if name not in path], "lacks"),
        ):
            if wrong:
                raise ValueError(
                    f"{where} {verb} {', '.join(map(repr, wrong))}: give it "
                    f"{', '.join(_PATH_OPTIONS)}, and nothing else."
                )
        layers.check_counts(where, **path)
