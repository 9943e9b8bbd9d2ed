"""The paper's network: a deep trunk beside shallow low-resolution paths.

The trunk learns the kind of object and becomes invariant to its looks; the shallow
paths keep the looks of the whole image at a coarse scale. A linear map joins both.
"""

from collections.abc import Mapping, Sequence
import functools

from flax import nnx
import jax
import jax.numpy as jnp

from deeprank_jax.models import cpu_ops, layers
from deeprank_jax.models.trunks.base import Trunk
from deeprank_jax.models.whitening import create_whitening

Array = jax.Array

_PATH_OPTIONS = ("subsample", "kernel", "stride", "width", "pool", "pool_stride")


class LowResolutionPath(nnx.Module):
    """Subsampling, one strided convolution, max-pooling, flattening."""

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
          image_size: Height and width of the network's images, in pixels.
          subsample: Factor by which the path shrinks them, a whole number.
          kernel: Height and width of the convolution's kernel.
          stride: Stride of the convolution.
          width: Number of channels of the convolution.
          pool: Height and width of the max-pooling's window.
          pool_stride: Stride of the max-pooling.
          dtype: Type that the convolution computes in.
          rngs: Keys of the initial parameters.
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
    """Maps images to unit embeddings.

    Attributes:
      embedding_dim: Length of an embedding, in an ensemble of all networks together.

    References:
      Wang et al., Learning Fine-grained Image Similarity with Deep Ranking, 2014,
      https://arxiv.org/abs/1404.4661, figure 3.
    """

    def __init__(
        self,
        trunk: Trunk,
        *,
        image_size: int,
        embedding_dim: int | None,
        embedding_norm: bool = False,
        paths: Sequence[Mapping[str, int]] = (),
        embed_shift: int = 0,
        embed_flip: bool = False,
        embed_prefix: int = 0,
        whitening_power: float = 0.0,
        others: Sequence[tuple[int, "MultiScale"]] = (),
        dtype: jnp.dtype = jnp.float32,
        axis_name: str | None = None,
        rngs: nnx.Rngs,
    ):
        """Creates the network around a trunk.

        Args:
          trunk: Trunk, from `[B, H, W, 3]` to `[B, trunk.num_features]`; the paths see
            pixels normalised as it needs them.
          image_size: Height and width of the images, in pixels.
          embedding_dim: Length of an embedding; None for the features of trunk and
            paths themselves, without a linear map.
          embedding_norm: True for BatchNorm of its numbers, as binary codes need it.
          paths: Options of each `LowResolutionPath`; none for the single-scale network.
          embed_shift: Length of the shifts over which `embed` averages, in pixels.
          embed_flip: True to average over mirror images in `embed`, too.
          embed_prefix: Number of first numbers that `embed` keeps; 0 for all.
          whitening_power: Power of the whitening of `embed`; 0 for none.
          others: Further networks, each with the factor by which its images shrink.
          dtype: Type that the paths compute in; the linear map computes in float32.
          axis_name: Name of the mapped axis over which that BatchNorm averages, if any.
          rngs: Keys of the initial parameters.

        Raises:
          ValueError: An option is missing, unknown or out of its range.
        """
        _check_shift(embed_shift, image_size)
        self.trunk = trunk
        self.paths = _create_paths(paths, image_size, dtype, rngs)
        num_features = trunk.num_features + sum(x.num_features for x in self.paths)
        self.embedding = (
            None
            if embedding_dim is None
            # In bfloat16 near embeddings would be rounded to the same vector.
            else nnx.Linear(num_features, embedding_dim, dtype=jnp.float32, rngs=rngs)
        )
        own_dim = num_features if embedding_dim is None else embedding_dim
        norm = functools.partial(layers.BatchNorm, momentum=0.9, axis_name=axis_name)
        self.embedding_norm = norm(own_dim, rngs=rngs) if embedding_norm else None
        self.others = nnx.List([network for _, network in others])
        self._factors = tuple(factor for factor, _ in others)
        self.embedding_dim = own_dim + sum(x.embedding_dim for x in self.others)
        self.whitening = create_whitening(whitening_power, self.embedding_dim)
        self._dtype = dtype
        layers.check_prefix(embed_prefix, self.embedding_dim)
        self._embed_shift, self._embed_flip = embed_shift, embed_flip
        self._embed_prefix = embed_prefix

    def __call__(self, images: Array, key: Array | None = None) -> Array:
        """Maps images to unit vectors.

        Those of an ensemble are the embeddings of its networks, side by side.

        Args:
          images: `[B, H, W, 3]`, 0 to 255.
          key: Key of the trunk's dropout in training; None disables it.

        Returns:
          `[B, embedding_dim]` float32.
        """
        parts = [self._embed_alone(images, key)]
        for i, (factor, other) in enumerate(
            zip(self._factors, self.others, strict=True)
        ):
            pixels = images
            if factor > 1:
                pixels = layers.subsample(images.astype(jnp.float32), factor)
            other_key = None if key is None else jax.random.fold_in(key, i)
            parts.append(other(pixels, other_key))
        if len(parts) == 1:
            return parts[0]
        return layers.l2_normalize(jnp.concatenate(parts, axis=-1))

    def _embed_alone(self, images: Array, key: Array | None) -> Array:
        """Maps images to the unit vectors of this network without the others."""
        pixels = layers.trunk_pixels(self.trunk, images, self._dtype)
        joined = [layers.l2_normalize(self.trunk(pixels, key))]
        if self.paths:
            # All shallow paths share one normalisation, as in figure 3.
            shallow = jnp.concatenate([path(pixels) for path in self.paths], axis=-1)
            joined.append(layers.l2_normalize(shallow))
        embeddings = jnp.concatenate(joined, axis=-1).astype(jnp.float32)
        if self.embedding is not None:
            embeddings = self.embedding(embeddings)
        if self.embedding_norm is not None:
            # As images of one pixel.
            embeddings = self.embedding_norm(embeddings[:, None, None])[:, 0, 0]
        return layers.l2_normalize(embeddings)

    def embed_once(self, images: Array) -> Array:
        """Maps images as `embed`, but one view of each, all numbers, not whitened."""
        return self(images)

    def embed(self, images: Array) -> Array:
        """Maps uint8 `[B, H, W, 3]` to unit vectors, float32 `[B, D]`.

        With `embed_shift` it is the direction of the mean over five places of an image,
        with `embed_flip` over each of them and its mirror image; then the whitening is
        applied, if there is one, and with `embed_prefix` only the first numbers are
        kept; else `D` is `embedding_dim`.
        """
        if self._embed_shift or self._embed_flip:
            views = images[None]
            if self._embed_shift:
                views = layers.shift_four_ways(images, self._embed_shift)
            if self._embed_flip:
                views = jnp.concatenate([views, views[..., ::-1, :]])
            embeddings = self.embed_once(views.reshape(-1, *images.shape[1:]))
            embeddings = layers.l2_normalize(
                jnp.mean(embeddings.reshape(*views.shape[:2], -1), axis=0)
            )
        else:
            embeddings = self.embed_once(images)
        if self.whitening is not None:
            embeddings = self.whitening(embeddings)
        return layers.shorten(embeddings, self._embed_prefix)

    def features(self, images: Array) -> Array:
        """Maps uint8 `[B, H, W, 3]` to the trunk's features, `[B, num_features]`."""
        return self.trunk(layers.trunk_pixels(self.trunk, images, self._dtype))


def _check_shift(embed_shift: int, image_size: int) -> None:
    """Checks that shifted images still show something."""
    if not 0 <= embed_shift < image_size:
        raise ValueError(
            f"embed_shift must be at least 0 and below the image's {image_size} "
            f"pixels, got {embed_shift}."
        )


def _create_paths(
    paths: Sequence[Mapping[str, int]],
    image_size: int,
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
) -> nnx.List[LowResolutionPath]:
    """Returns the low-resolution paths, whose options are checked."""
    _check_paths(paths)
    return nnx.List(
        [
            LowResolutionPath(image_size=image_size, dtype=dtype, rngs=rngs, **path)
            for path in paths
        ]
    )


def _check_paths(paths: Sequence[Mapping[str, int]]) -> None:
    """Checks that each path has exactly the options of `LowResolutionPath`."""
    for i, path in enumerate(paths):
        layers.check_options(
            f"paths[{i}]", path, options=_PATH_OPTIONS, needed=_PATH_OPTIONS
        )
        layers.check_counts(**{f"paths[{i}].{name}": x for name, x in path.items()})
