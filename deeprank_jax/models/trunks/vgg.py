"""VGG16 up to its second fully connected layer, the trunk of the Keras variant."""

from flax import nnx
import jax
import jax.numpy as jnp

from deeprank_jax.models import cpu_ops, layers

Array = jax.Array

# Channels of the convolutions of each stage; a pooling ends a stage.
_STAGES = ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)
_LEAST_SIZE = 2 ** len(_STAGES)


class VGG16(nnx.Module):
    """Thirteen 3x3 convolutions in five stages, two fully connected layers.

    Attributes:
      num_features: Length of the features.
      pixel_mean: Value subtracted from the pixels (0 to 255) of each channel.
      pixel_scale: Divisor of the difference, of each channel.

    References:
      Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image
      Recognition, 2014, https://arxiv.org/abs/1409.1556, configuration D.
    """

    pixel_mean = layers.IMAGENET_MEAN
    pixel_scale = layers.IMAGENET_STD

    def __init__(
        self,
        *,
        fc_dim: int = 4096,
        dropout_keep: float = 0.5,
        image_size: int,
        norm: layers.NormFn,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Creates the trunk.

        Args:
          fc_dim: Width of both fully connected layers.
          dropout_keep: Share of values that both keep in training.
          image_size: Height and width of the images, in pixels, at least 32;
            pretrained weights need 224 to 255.
          norm: Unused; this network has no BatchNorm.
          dtype: Type that the layers compute in; parameters stay float32.
          rngs: Keys of the initial parameters.

        Raises:
          ValueError: The images are too small, or an option is out of its range.
        """
        del norm
        layers.check_image_size("vgg16", image_size, _LEAST_SIZE)
        layers.check_dropout_keep(dropout_keep)
        layers.check_counts(fc_dim=fc_dim)
        before, self.convs = 3, nnx.List([])
        for after in (width for stage in _STAGES for width in stage):
            self.convs.append(
                layers.conv(before, after, 3, use_bias=True, dtype=dtype, rngs=rngs)
            )
            before = after
        size = image_size // _LEAST_SIZE
        self.fcs = layers.fully_connected(
            size**2 * before, fc_dim, dtype=dtype, rngs=rngs
        )
        self.num_features = fc_dim
        self._dropout_keep = dropout_keep

    def __call__(self, images: Array, key: Array | None = None) -> Array:
        """Maps `[B, H, W, 3]` to `[B, num_features]`; a key turns on dropout."""
        x, convs = images, iter(self.convs)
        for stage in _STAGES:
            for _ in stage:
                x = nnx.relu(next(convs)(x))
            x = cpu_ops.max_pool(x, window=2, stride=2, padding="VALID")
            x = layers.end_block(x)
        return layers.apply_fully_connected(
            self.fcs, x.reshape(x.shape[0], -1), self._dropout_keep, key
        )
