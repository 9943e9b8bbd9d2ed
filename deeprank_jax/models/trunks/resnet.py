"""ResNet-50, up to its global pooling."""

from flax import nnx
import jax
import jax.numpy as jnp

from deeprank_jax.models import cpu_ops, layers
from deeprank_jax.models.pooling import create_pooling

Array = jax.Array

# Of each stage: blocks, their inner width, stride of the first block.
_STAGES = ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2))
_EXPANSION = 4
_LEAST_SIZE = 32


class Bottleneck(nnx.Module):
    """1x1, 3x3 and 1x1 convolutions, and a shortcut."""

    def __init__(
        self,
        before: int,
        width: int,
        *,
        stride: int,
        norm: layers.NormFn,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        """Creates the block; the 3x3 convolution has the stride."""
        after = width * _EXPANSION
        self.convs, self.norms = nnx.List([]), nnx.List([])
        for inner_before, inner_after, kernel, inner_stride in (
            (before, width, 1, 1),
            (width, width, 3, stride),
            (width, after, 1, 1),
        ):
            pad = kernel // 2
            self.convs.append(
                layers.conv(
                    inner_before,
                    inner_after,
                    kernel,
                    stride=inner_stride,
                    padding=((pad, pad), (pad, pad)),
                    dtype=dtype,
                    rngs=rngs,
                )
            )
            self.norms.append(norm(inner_after, rngs=rngs))
        self.shortcut: nnx.Conv | None = nnx.data(None)
        self.shortcut_norm: layers.BatchNorm | None = nnx.data(None)
        if before != after or stride > 1:
            self.shortcut = layers.conv(
                before, after, 1, stride=stride, padding="VALID", dtype=dtype, rngs=rngs
            )
            self.shortcut_norm = norm(after, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """Maps `[B, H, W, C]` to `[B, H / stride, W / stride, 4 * width]`."""
        y = x
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            y = norm(conv(y))
            y = nnx.relu(y) if i < len(self.convs) - 1 else y
        if self.shortcut is not None and self.shortcut_norm is not None:
            x = self.shortcut_norm(self.shortcut(x))
        return layers.end_block(nnx.relu(x + y))


class ResNet50(nnx.Module):
    """A 7x7 convolution, sixteen bottlenecks, a global pooling.

    Attributes:
      num_features: Length of the features.
      pixel_mean: Value subtracted from the pixels (0 to 255) of each channel.
      pixel_scale: Divisor of the difference, of each channel.

    References:
      He et al., Deep Residual Learning for Image Recognition, 2015,
      https://arxiv.org/abs/1512.03385, with the stride in the 3x3 convolution, as
      torchvision and timm have it.
    """

    pixel_mean = layers.IMAGENET_MEAN
    pixel_scale = layers.IMAGENET_STD

    def __init__(
        self,
        *,
        pooling: str = "mean",
        image_size: int,
        norm: layers.NormFn,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Creates the trunk.

        Args:
          pooling: Name of the pooling at the end, see `models.pooling`.
          image_size: Height and width of the images, in pixels, at least 32.
          norm: Function that creates a BatchNorm.
          dtype: Type that the layers compute in; parameters stay float32.
          rngs: Keys of the initial parameters.

        Raises:
          ValueError: The images are too small, or no such pooling exists.
        """
        layers.check_image_size("resnet50", image_size, _LEAST_SIZE)
        self.pooling = create_pooling(pooling)
        before = _STAGES[0][1]
        self.stem = layers.conv(
            3, before, 7, stride=2, padding=((3, 3), (3, 3)), dtype=dtype, rngs=rngs
        )
        self.stem_norm = norm(before, rngs=rngs)
        self.blocks = nnx.List([])
        for num_blocks, width, stage_stride in _STAGES:
            for i in range(num_blocks):
                stride = stage_stride if i == 0 else 1
                self.blocks.append(
                    Bottleneck(
                        before, width, stride=stride, norm=norm, dtype=dtype, rngs=rngs
                    )
                )
                before = width * _EXPANSION
        self.num_features = before

    def __call__(self, images: Array, key: Array | None = None) -> Array:
        """Maps `[B, H, W, 3]` floats to `[B, num_features]`."""
        del key  # This network has no dropout.
        x = nnx.relu(self.stem_norm(self.stem(images)))
        x = cpu_ops.max_pool(x, window=3, stride=2, padding=((1, 1), (1, 1)))
        for block in self.blocks:
            x = block(x)
        return self.pooling(x)
