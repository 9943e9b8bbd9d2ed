"""AlexNet, the paper's ConvNet, up to its second fully connected layer."""

from collections.abc import Sequence

from flax import nnx
import jax
import jax.numpy as jnp

from deeprank_jax.models import cpu_ops, layers

Array = jax.Array

# Kernel, stride and padding of each convolution, and True if a pooling follows.
_CONVS = ((11, 4, 2, True), (5, 1, 2, True), (3, 1, 1, False), (3, 1, 1, False),
          (3, 1, 1, True))  # fmt: skip
# Convolutions whose channels were split over two GPUs.
_GROUPED = (1, 3, 4)
_NORMALIZED = (0, 1)
# Krizhevsky's 1e-4 is for pixels that are not divided by their deviation.
_ALPHA = 1e-4 * (sum(layers.IMAGENET_STD) / 3) ** 2
# The last pooling of smaller images has no input.
_LEAST_SIZE = 63


class AlexNet(nnx.Module):
    """Five convolutions and two fully connected layers with dropout.

    Attributes:
      num_features: Length of the features.
      pixel_mean: Value subtracted from the pixels (0 to 255) of each channel.
      pixel_scale: Divisor of the difference, of each channel.

    References:
      Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural
      Networks, 2012.
    """

    pixel_mean = layers.IMAGENET_MEAN
    pixel_scale = layers.IMAGENET_STD

    def __init__(
        self,
        *,
        widths: Sequence[int] = (96, 256, 384, 384, 256),
        groups: int = 2,
        local_response_norm: bool = True,
        fc_dim: int = 4096,
        dropout_keep: float = 0.6,
        image_size: int,
        norm: layers.NormFn,
        dtype: jnp.dtype = jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Creates the trunk.

        Args:
          widths: Number of channels of each convolution. (64, 192, 384, 256, 256) with
            1 group and no `local_response_norm` is torchvision's network.
          groups: Number of groups of the second, fourth and fifth convolution.
          local_response_norm: True to normalise after the first two convolutions.
          fc_dim: Width of both fully connected layers.
          dropout_keep: Share of values that both keep in training, the paper's.
          image_size: Height and width of the images, in pixels, at least 63.
          norm: Unused; this network has no BatchNorm.
          dtype: Type that the layers compute in; parameters stay float32.
          rngs: Keys of the initial parameters.

        Raises:
          ValueError: The images are too small, or an option is out of its range.
        """
        del norm
        layers.check_image_size("alexnet", image_size, _LEAST_SIZE)
        layers.check_dropout_keep(dropout_keep)
        _check_widths(widths, groups, fc_dim)
        self.convs = nnx.List([])
        size = image_size
        for i, (before, after, (kernel, stride, pad, has_pool)) in enumerate(
            zip((3, *widths[:-1]), widths, _CONVS, strict=True)
        ):
            self.convs.append(
                layers.conv(
                    before,
                    after,
                    kernel,
                    stride=stride,
                    padding=((pad, pad), (pad, pad)),
                    groups=groups if i in _GROUPED else 1,
                    use_bias=True,
                    dtype=dtype,
                    rngs=rngs,
                )
            )
            size = (size + 2 * pad - kernel) // stride + 1
            size = (size - 3) // 2 + 1 if has_pool else size
        self.fcs = layers.fully_connected(
            size**2 * widths[-1], fc_dim, dtype=dtype, rngs=rngs
        )
        self.num_features = fc_dim
        self._local_response_norm = local_response_norm
        self._dropout_keep = dropout_keep

    def __call__(self, images: Array, key: Array | None = None) -> Array:
        """Maps `[B, H, W, 3]` to `[B, num_features]`; a key turns on dropout."""
        x = images
        for i, (conv, (*_, has_pool)) in enumerate(
            zip(self.convs, _CONVS, strict=True)
        ):
            x = nnx.relu(conv(x))
            if self._local_response_norm and i in _NORMALIZED:
                x = layers.local_response_norm(x, alpha=_ALPHA)
            if has_pool:
                x = cpu_ops.max_pool(x, window=3, stride=2, padding="VALID")
            x = layers.end_block(x)
        return layers.apply_fully_connected(
            self.fcs, x.reshape(x.shape[0], -1), self._dropout_keep, key
        )


def _check_widths(widths: Sequence[int], groups: int, fc_dim: int) -> None:
    if len(widths) != len(_CONVS):
        raise ValueError(
            f"widths must hold {len(_CONVS)} numbers for alexnet, one for each "
            f"convolution, got {tuple(widths)}."
        )
    layers.check_counts(widths=widths, groups=groups, fc_dim=fc_dim)
    if any(width % groups for width in widths):
        raise ValueError(
            f"groups must divide each of widths={tuple(widths)}, as the channels are "
            f"split evenly, got {groups}."
        )
