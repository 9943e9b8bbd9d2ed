"""EfficientNet-Lite: EfficientNet with ReLU6 and without squeeze-and-excite."""

import math

from flax import nnx
import jax
import jax.numpy as jnp

from deeprank_jax.models import layers
from deeprank_jax.models.pooling import create_pooling

Array = jax.Array

_EPSILON = 1e-3
_STEM, _HEAD = 32, 1280
_LEAST_SIZE = 32
# Of each stage: blocks, kernel, stride of the first block, expansion, channels.
_STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80),
           (3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320))  # fmt: skip


class InvertedResidual(nnx.Module):
    """1x1 convolution, depthwise convolution, 1x1 convolution, and a shortcut."""

    def __init__(
        self,
        before: int,
        after: int,
        *,
        kernel: int,
        stride: int,
        expansion: int,
        norm: layers.NormFn,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        """Creates the block; its first convolution needs an expansion above 1."""
        inner = before * expansion
        self.expand: nnx.Conv | None = nnx.data(None)
        self.expand_norm: layers.BatchNorm | None = nnx.data(None)
        if expansion > 1:
            self.expand = layers.conv(before, inner, 1, dtype=dtype, rngs=rngs)
            self.expand_norm = norm(inner, epsilon=_EPSILON, rngs=rngs)
        self.depthwise = layers.DepthwiseConv(
            inner, kernel, stride=stride, dtype=dtype, rngs=rngs
        )
        self.depthwise_norm = norm(inner, epsilon=_EPSILON, rngs=rngs)
        self.project = layers.conv(inner, after, 1, dtype=dtype, rngs=rngs)
        self.project_norm = norm(after, epsilon=_EPSILON, rngs=rngs)
        self._has_shortcut = stride == 1 and before == after

    def __call__(self, x: Array) -> Array:
        """Maps `[B, H, W, C]` to `[B, H / stride, W / stride, after]`, rounding up."""
        y = x
        if self.expand is not None and self.expand_norm is not None:
            y = nnx.relu6(self.expand_norm(self.expand(y)))
        y = nnx.relu6(self.depthwise_norm(self.depthwise(y)))
        y = self.project_norm(self.project(y))
        return layers.end_block(x + y if self._has_shortcut else y)


class EfficientNetLite(nnx.Module):
    """A 3x3 convolution, inverted residuals, a 1x1 convolution, a pooling.

    Attributes:
      num_features: Length of the features.
      pixel_mean: Value subtracted from the pixels (0 to 255).
      pixel_scale: Divisor of the difference.

    References:
      Tan and Le, EfficientNet, 2019, https://arxiv.org/abs/1905.11946, in the
      variant for mobile devices: https://github.com/tensorflow/tpu
      (models/official/efficientnet/lite).
    """

    # As in the training of the published weights; mean and deviation of ImageNet give
    # visibly worse results.
    pixel_mean = 127.0
    pixel_scale = 128.0

    def __init__(
        self,
        *,
        width: float,
        depth: float,
        pooling: str = "mean",
        image_size: int,
        norm: layers.NormFn,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Creates the trunk.

        Args:
          width: Factor of the channels between stem and head, rounded to 8.
          depth: Factor of the blocks of all stages but the first and the last,
            rounded up.
          pooling: Name of the pooling at the end, see `models.pooling`.
          image_size: Height and width of the images, in pixels, at least 32.
          norm: Function that creates a BatchNorm.
          dtype: Type that the layers compute in; parameters stay float32.
          rngs: Keys of the initial parameters.

        Raises:
          ValueError: The images are too small, or no such pooling exists.
        """
        layers.check_image_size("efficientnet_lite", image_size, _LEAST_SIZE)
        self.pooling = create_pooling(pooling)
        self.stem = layers.conv(3, _STEM, 3, stride=2, dtype=dtype, rngs=rngs)
        self.stem_norm = norm(_STEM, epsilon=_EPSILON, rngs=rngs)
        self.blocks = nnx.List([])
        before = _STEM
        for stage, (num_blocks, kernel, stride, expansion, channels) in enumerate(
            _STAGES
        ):
            fixed = stage in (0, len(_STAGES) - 1)
            after = _round_channels(width * channels)
            for i in range(num_blocks if fixed else math.ceil(depth * num_blocks)):
                self.blocks.append(
                    InvertedResidual(
                        before,
                        after,
                        kernel=kernel,
                        stride=stride if i == 0 else 1,
                        expansion=expansion,
                        norm=norm,
                        dtype=dtype,
                        rngs=rngs,
                    )
                )
                before = after
        self.head = layers.conv(before, _HEAD, 1, dtype=dtype, rngs=rngs)
        self.head_norm = norm(_HEAD, epsilon=_EPSILON, rngs=rngs)
        self.num_features = _HEAD

    def __call__(self, images: Array, key: Array | None = None) -> Array:
        """Maps `[B, H, W, 3]` floats to `[B, num_features]`."""
        del key  # This network has no dropout.
        x = nnx.relu6(self.stem_norm(self.stem(images)))
        for block in self.blocks:
            x = block(x)
        x = nnx.relu6(self.head_norm(self.head(x)))
        return self.pooling(x)


def _round_channels(channels: float, divisor: int = 8) -> int:
    """Rounds to a multiple of `divisor`, down by a tenth at most."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded
