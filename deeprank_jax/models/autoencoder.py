"""A ranking network with a decoder from embeddings to images.

The decoder is trained with the network and left out of exported models.

References:
  Vincent et al., Stacked Denoising Autoencoders: Learning Useful Representations in a
  Deep Network with a Local Denoising Criterion, 2010,
  https://jmlr.org/papers/v11/vincent10a.html.
"""

from collections.abc import Sequence
import itertools
from typing import Any, NamedTuple

from flax import nnx
import jax
import jax.numpy as jnp

from deeprank_jax.models import cpu_ops, layers
from deeprank_jax.models.multiscale import MultiScale
from deeprank_jax.models.trunks.base import Trunk

Array = jax.Array

# Separates the keys of the noise from those of the trunk's dropout.
_NOISE = 2**31 - 2
# Images before training deviate by about .1 from grey, not by the whole pixel range.
_NEARLY_GREY = nnx.initializers.variance_scaling(0.01, "fan_in", "truncated_normal")


class DecoderSizes(NamedTuple):
    """Sizes of a decoder, and the noise of the images that it is trained with.

    Attributes:
      widths: Number of channels of each stage, the smallest image first.
      reduce: Factor by which the reconstructed images are smaller.
      noise: Standard deviation of the noise, as a share of the pixel range.
    """

    widths: Sequence[int] = (128, 64, 32)
    reduce: int = 2
    noise: float = 0.1


class Decoder(nnx.Module):
    """Maps unit vectors to images: a linear map, then stages that double the image.

    A stage is a convolution of the image with each pixel doubled; BatchNorm and ReLU
    come before it.

    Attributes:
      image_size: Height and width of the images, in pixels.
    """

    def __init__(
        self,
        num_features: int,
        *,
        image_size: int,
        widths: Sequence[int],
        dtype: jnp.dtype = jnp.float32,
        axis_name: str | None = None,
        rngs: nnx.Rngs,
    ):
        """Creates the decoder.

        Args:
          num_features: Length `D` of the vectors.
          image_size: Height and width `S` of the images, in pixels.
          widths: Number of channels of each stage; a stage doubles the image, less the
            last row and column where its size is odd.
          dtype: Type that the convolutions compute in.
          axis_name: Name of the mapped axis over which BatchNorm averages, if any.
          rngs: Keys of the initial parameters.
        """
        self.image_size = image_size
        sizes = [image_size]
        for _ in widths:
            sizes.insert(0, -(-sizes[0] // 2))
        self._sizes = tuple(sizes)
        self._first_width, self._dtype = widths[0], dtype
        self.linear = nnx.Linear(
            num_features, sizes[0] ** 2 * widths[0], dtype=dtype, rngs=rngs
        )
        self.norms = nnx.List(
            [
                layers.BatchNorm(width, momentum=0.9, axis_name=axis_name, rngs=rngs)
                for width in widths
            ]
        )
        self.convs = nnx.List(
            [
                layers.conv(*pair, 3, dtype=dtype, rngs=rngs)
                for pair in itertools.pairwise(widths)
            ]
        )
        self.last = nnx.Conv(
            widths[-1],
            3,
            (3, 3),
            kernel_init=_NEARLY_GREY,
            bias_init=nnx.initializers.constant(0.5),
            conv_general_dilated=cpu_ops.conv_general_dilated,
            dtype=dtype,
            rngs=rngs,
        )

    def __call__(self, embeddings: Array) -> Array:
        """Maps unit vectors `[B, D]` to images `[B, S, S, 3]`, float32.

        A pixel is from 0 to 1 as a target, and may lie outside as an output.
        """
        # Entries of about 1, as an initial weight expects.
        x = self.linear(embeddings * embeddings.shape[-1] ** 0.5)
        x = x.reshape(len(x), *2 * (self._sizes[0],), self._first_width)
        for size, norm, conv in zip(
            self._sizes[1:], self.norms, [*self.convs, self.last], strict=True
        ):
            x = nnx.relu(norm(x))
            x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)[:, :size, :size]
            x = layers.end_block(conv(x))
        return x.astype(jnp.float32)


class Autoencoder(MultiScale):
    """Maps images to their reconstructions, and to embeddings before the decoder.

    Attributes:
      decoder: The decoder, which reads the embedding of an image.
    """

    def __init__(
        self,
        trunk: Trunk,
        *,
        image_size: int,
        decoder: DecoderSizes,
        dtype: jnp.dtype = jnp.float32,
        axis_name: str | None = None,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        """Creates the network around a trunk; `MultiScale` has the other arguments.

        Args:
          trunk: Trunk, as in `MultiScale`.
          image_size: Height and width of the images, in pixels.
          decoder: Sizes of the decoder, and the noise.
          dtype: Type that paths and decoder compute in.
          axis_name: Name of the mapped axis, if any.
          rngs: Keys of the initial parameters; those of the network without its decoder
            are the same as of `MultiScale`.
          **options: Arguments of `MultiScale`.

        Raises:
          ValueError: As `MultiScale`.
        """
        shared: dict[str, Any] = {"dtype": dtype, "axis_name": axis_name, "rngs": rngs}
        super().__init__(trunk, image_size=image_size, **shared, **options)
        self.decoder = Decoder(
            self.embedding_dim,
            image_size=-(-image_size // decoder.reduce),
            widths=tuple(decoder.widths),
            **shared,
        )
        self._noise = decoder.noise

    def __call__(self, images: Array, key: Array | None = None) -> Array:
        """Maps images to reconstructions `[B, S * S * 3]`, float32, row by row.

        Args:
          images: `[B, H, W, 3]` uint8.
          key: Key of the noise and of dropout; None for neither, as in evaluation.
        """
        pixels = images
        if key is not None and self._noise:
            pixels = add_noise(images, self._noise, jax.random.fold_in(key, _NOISE))
        return self.decoder(super().__call__(pixels, key)).reshape(len(images), -1)

    def embed_once(self, images: Array) -> Array:
        """Maps images to unit vectors before the decoder, `[B, embedding_dim]`."""
        return super().__call__(images)


def add_noise(images: Array, noise: float, key: Array) -> Array:
    """Returns images with Gaussian noise, cut off at the ends of the pixel range.

    Args:
      images: `[B, H, W, 3]` uint8.
      noise: Standard deviation, as a share of the pixel range.
      key: Key of the draw.

    Returns:
      `[B, H, W, 3]` float32 from 0 to 255.
    """
    gaussian = jax.random.normal(key, images.shape)
    return jnp.clip(images.astype(jnp.float32) + 255.0 * noise * gaussian, 0.0, 255.0)
