"""The paper's ConvNet: AlexNet, up to the second fully connected layer."""

from collections.abc import Sequence

from flax import nnx
import jax
import jax.numpy as jnp

from deeprank_jax.models import cpu_ops, layers

Array = jax.Array

# Kernel, stride, padding of each convolution, and whether a pooling follows.
_CONVS = ((11, 4, 2, True), (5, 1, 2, True), (3, 1, 1, False), (3, 1, 1, False),
          (3, 1, 1, True))  # fmt: skip
# Those that were split over two GPUs see half of the channels each.
_GROUPED = (1, 3, 4)
_NORMALIZED = (0, 1)
# 1e-4 of pixels that are not divided by their deviation, as Krizhevsky's were not.
_ALPHA = 1e-4 * (sum(layers.IMAGENET_STD) / 3) ** 2
# Below this nothing is left for the last pooling.
_LEAST_SIZE = 63


class AlexNet(nnx.Module):
    """Five convolutions and two fully connected layers with dropout.

    Attributes:
      num_features: the length of what the trunk returns.
      pixel_mean: of each channel, what is taken from a pixel's 0 to 255.
      pixel_scale: of each channel, what the rest is divided by.

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
          widths: channels of each convolution. (64, 192, 384, 256, 256) with 1 group
            and no `local_response_norm` is the later network of one GPU, whose
            weights torchvision has.
          groups: of the second, fourth and fifth convolution.
          local_response_norm: after the first two convolutions.
          fc_dim: of both fully connected layers.
          dropout_keep: the share that both keep in training; the paper's.
          image_size: height and width of the images, in pixels, at least 63.
          norm: is not used, this network has no BatchNorm.
          dtype: what the layers compute in; parameters stay float32.
          rngs: keys of the initial parameters.

        Raises:
          ValueError: the images are too small, or an option is out of its range.
        """
        del norm
        layers.check_image_size("alexnet", image_size, _LEAST_SIZE)
        layers.check_dropout_keep(dropout_keep)
        if len(widths) != len(_CONVS):
            raise ValueError(
                f"config.model.trunk.widths={tuple(widths)} must hold {len(_CONVS)} "
                "numbers for alexnet, one for each convolution."
            )
        layers.check_counts(
            "config.model.trunk", widths=widths, groups=groups, fc_dim=fc_dim
        )
        if any(width % groups for width in widths):
            raise ValueError(
                f"config.model.trunk.groups={groups} must divide each of "
                f"config.model.trunk.widths={tuple(widths)}: the channels are split "
                "evenly."
            )
        self.convs = nnx.List([])
        size = image_size
        for i, (before, after, (kernel, stride, pad, pooled)) in enumerate(
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
            size = (size - 3) // 2 + 1 if pooled else size
        self.fcs = layers.fully_connected(
            size**2 * widths[-1], fc_dim, dtype=dtype, rngs=rngs
        )
        self.num_features = fc_dim
        self._local_response_norm = local_response_norm
        self._dropout_keep = dropout_keep

    def __call__(self, images: Array, key: Array | None = None) -> Array:
        """Maps `[B, H, W, 3]` floats to `[B, num_features]`; a key drops some."""
        x = images
        for i, (conv, (*_, pooled)) in enumerate(zip(self.convs, _CONVS, strict=True)):
            x = nnx.relu(conv(x))
            if self._local_response_norm and i in _NORMALIZED:
                x = layers.local_response_norm(x, alpha=_ALPHA)
            if pooled:
                x = cpu_ops.max_pool(x, window=3, stride=2, padding="VALID")
            x = layers.end_block(x)
        return layers.apply_fully_connected(
            self.fcs, x.reshape(x.shape[0], -1), self._dropout_keep, key
        )
