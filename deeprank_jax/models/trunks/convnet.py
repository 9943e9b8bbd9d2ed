"""A small convolutional trunk for images of 32 to 96 pixels."""

from collections.abc import Sequence
import math

from flax import nnx
import jax
import jax.numpy as jnp

from deeprank_jax.models import cpu_ops, layers

Array = jax.Array


class ConvNet(nnx.Module):
    """Stages of convolution, max-pooling, BatchNorm and ReLU, flattened.

    Attributes:
      num_features: Length of the features.
      pixel_mean: Value subtracted from the pixels (0 to 255).
      pixel_scale: Divisor of the difference.

    References:
      This project's own; the order of pooling and BatchNorm saves time on CPU.
    """

    pixel_mean = 127.5
    pixel_scale = 127.5

    def __init__(
        self,
        *,
        widths: Sequence[int] = (32, 64, 128, 256),
        stem_kernel: int = 3,
        stem_stride: int = 1,
        image_size: int,
        norm: layers.NormFn,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Creates the trunk.

        Args:
          widths: Number of channels of each stage; a stage halves the image, rounding
            up.
          stem_kernel: Height and width of the first convolution; the others are 3.
          stem_stride: Stride of the first convolution. Above 1 it replaces the pooling
            of that stage.
          image_size: Height and width of the images, in pixels.
          norm: Function that creates a BatchNorm.
          dtype: Type that the convolutions compute in; parameters stay float32.
          rngs: Keys of the initial parameters.

        Raises:
          ValueError: There is no stage, or an option is out of its range.
        """
        _check_options(widths, stem_kernel, stem_stride)
        self.convs, self.norms = nnx.List([]), nnx.List([])
        stem_pool = 1 if stem_stride > 1 else 2
        self._pools: tuple[int, ...] = (stem_pool, *[2] * (len(widths) - 1))
        size = math.ceil(image_size / stem_stride)
        for stage, (before, after) in enumerate(
            zip((3, *widths), widths, strict=False)
        ):
            kernel, stride = (stem_kernel, stem_stride) if stage == 0 else (3, 1)
            self.convs.append(
                nnx.Conv(
                    before,
                    after,
                    (kernel, kernel),
                    strides=stride,
                    use_bias=False,
                    conv_general_dilated=cpu_ops.conv_general_dilated,
                    dtype=dtype,
                    rngs=rngs,
                )
            )
            self.norms.append(norm(after, rngs=rngs))
            size = math.ceil(size / self._pools[stage])
        self.num_features = widths[-1] * size**2

    def __call__(self, images: Array, key: Array | None = None) -> Array:
        """Maps `[B, H, W, 3]` floats to `[B, num_features]`."""
        del key  # This network has no dropout.
        x = images
        for conv, norm, pool in zip(self.convs, self.norms, self._pools, strict=True):
            # BatchNorm after pooling costs a quarter.
            x = nnx.relu(norm(cpu_ops.max_pool(conv(x), window=pool, stride=pool)))
            x = layers.end_block(x)
        # Flattened, not averaged: the place of a part matters for similarity.
        return x.reshape(x.shape[0], -1)


def _check_options(widths: Sequence[int], stem_kernel: int, stem_stride: int) -> None:
    if not widths:
        raise ValueError(
            "widths must hold the channels of at least one stage for convnet, as "
            f"(32, 64, 128, 256), got {widths}."
        )
    layers.check_counts(widths=widths, stem_kernel=stem_kernel, stem_stride=stem_stride)
