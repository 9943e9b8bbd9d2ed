"""Layers shared by several networks."""

from collections.abc import Callable, Mapping, Sequence
import functools
import numbers

from flax import nnx
import jax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp

from deeprank_jax.models import cpu_ops
from deeprank_jax.models.trunks.base import Trunk

Array = jax.Array
# Creates a BatchNorm: `norm(num_features, epsilon=..., rngs=...)`.
NormFn = Callable[..., "BatchNorm"]
Padding = str | Sequence[tuple[int, int]]

# Mean and deviation of the channels red, green and blue, on the scale of 0 to 255:
# the weights of torchvision and timm were trained with them.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)

# Name of the activations that the train step stores if it recomputes the others.
BLOCK_OUTPUT = "block_output"

_HE_NORMAL = nnx.initializers.variance_scaling(2.0, "fan_out", "truncated_normal")


def conv(
    before: int,
    after: int,
    kernel: int,
    *,
    stride: int = 1,
    padding: Padding = "SAME",
    groups: int = 1,
    use_bias: bool = False,
    dtype: jnp.dtype,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """Returns a square convolution with He's initial weights.

    Args:
      before: Number of input channels.
      after: Number of output channels.
      kernel: Height and width of the kernel.
      stride: Stride of both axes.
      padding: `"SAME"`, `"VALID"` or a pair of numbers for each axis.
      groups: Number of groups of channels.
      use_bias: True to add a bias.
      dtype: Type of the computation; parameters stay float32.
      rngs: Keys of the initial parameters.
    """
    return nnx.Conv(
        before,
        after,
        (kernel, kernel),
        strides=stride,
        padding=padding,
        feature_group_count=groups,
        use_bias=use_bias,
        kernel_init=_HE_NORMAL,
        conv_general_dilated=cpu_ops.conv_general_dilated,
        dtype=dtype,
        rngs=rngs,
    )


class DepthwiseConv(nnx.Module):
    """Depthwise convolution: one kernel per channel, with SAME padding."""

    def __init__(
        self,
        num_features: int,
        kernel: int,
        *,
        stride: int,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        """Creates the layer; see `conv`."""
        shape = (kernel, kernel, 1, num_features)
        self.kernel = nnx.Param(
            nnx.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")(
                rngs.params(), shape
            )
        )
        self._stride, self._dtype = stride, dtype

    def __call__(self, x: Array) -> Array:
        """Maps `[B, H, W, C]` to `[B, ceil(H / stride), ceil(W / stride), C]`."""
        kernel = self.kernel[...].astype(self._dtype)
        return cpu_ops.depthwise_conv(x.astype(self._dtype), kernel, self._stride)


class BatchNorm(nnx.Module):
    """BatchNorm over a batch that may be spread over a mapped axis.

    Statistics are float32 in a network of any type. The values are those of Flax's
    BatchNorm, whose sums would take most of a train step on CPU.

    References:
      Ioffe and Szegedy, Batch Normalization, 2015, https://arxiv.org/abs/1502.03167.
    """

    def __init__(
        self,
        num_features: int,
        *,
        use_running_average: bool = False,
        momentum: float = 0.99,
        epsilon: float = 1e-5,
        axis_name: str | None = None,
        rngs: nnx.Rngs,
    ):
        """Creates the layer.

        Args:
          num_features: Number of channels, `C`.
          use_running_average: True to normalise by the running averages and keep them;
            `eval()` of a model sets it.
          momentum: Weight of the running averages in their update.
          epsilon: Number added to the variance.
          axis_name: Name of the mapped axis over which statistics are averaged, if any.
          rngs: Unused; the layer has no random parameters.
        """
        del rngs
        self.scale = nnx.Param(jnp.ones(num_features))
        self.bias = nnx.Param(jnp.zeros(num_features))
        self.mean = nnx.BatchStat(jnp.zeros(num_features))
        self.var = nnx.BatchStat(jnp.ones(num_features))
        self.use_running_average = use_running_average
        self._momentum, self._epsilon = momentum, epsilon
        self._axis_name = axis_name

    def __call__(self, x: Array) -> Array:
        """Normalises each channel of `[B, H, W, C]`, in the type of `x`."""
        if self.use_running_average:
            mean, var = self.mean[...], self.var[...]
        else:
            mean, square = cpu_ops.channel_moments(x)
            if self._axis_name is not None:
                mean, square = jax.lax.pmean((mean, square), self._axis_name)
            # The variance of a constant channel can be rounded to below 0.
            var = jnp.maximum(square - jnp.square(mean), 0.0)
            for running, batch in ((self.mean, mean), (self.var, var)):
                running[...] = self._momentum * running[...] + (
                    1.0 - self._momentum
                ) * jax.lax.stop_gradient(batch)
        scale = self.scale[...] * jax.lax.rsqrt(var + self._epsilon)
        return cpu_ops.normalize_channels(x, mean, scale, self.bias[...])


def dropout(x: Array, keep: float, key: Array | None) -> Array:
    """Keeps each value with probability `keep`, scaled by `1 / keep`.

    Args:
      x: Array of any shape.
      keep: Probability in (0, 1], the paper's .6. Other libraries name the share of
        dropped values "dropout".
      key: Key of the random draws; None keeps all values, as in evaluation.
    """
    if key is None or keep == 1.0:
        return x
    mask = jax.random.bernoulli(key, keep, x.shape)
    return jnp.where(mask, x / keep, 0.0).astype(x.dtype)


def fully_connected(
    before: int, after: int, *, dtype: jnp.dtype, rngs: nnx.Rngs
) -> nnx.List:
    """Returns the two fully connected layers at the end of AlexNet and VGG16."""
    return nnx.List(
        [
            nnx.Linear(width, after, kernel_init=_HE_NORMAL, dtype=dtype, rngs=rngs)
            for width in (before, after)
        ]
    )


def apply_fully_connected(
    fcs: nnx.List, x: Array, keep: float, key: Array | None
) -> Array:
    """Applies each layer, ReLU and dropout: `[B, before] -> [B, after]`."""
    keys = [None] * len(fcs) if key is None else jax.random.split(key, len(fcs))
    for fc, fc_key in zip(fcs, keys, strict=True):
        x = dropout(nnx.relu(fc(x)), keep, fc_key)
    return x


def end_block(x: Array) -> Array:
    """Marks a block's output, stored for the gradient if the rest is recomputed."""
    return checkpoint_name(x, BLOCK_OUTPUT)


def trunk_pixels(trunk: Trunk, images: Array, dtype: jnp.dtype) -> Array:
    """Normalises images `[B, H, W, C]` as a trunk's weights expect them.

    Args:
      trunk: Trunk with the `pixel_mean` and `pixel_scale` to apply.
      images: `[B, H, W, C]`, 0 to 255.
      dtype: Type of the result.
    """
    by_channel = functools.partial(jnp.broadcast_to, shape=(1, 1, 1, images.shape[-1]))
    mean, scale = (
        by_channel(jnp.asarray(x, jnp.float32))
        for x in (trunk.pixel_mean, trunk.pixel_scale)
    )
    return ((images.astype(jnp.float32) - mean) / scale).astype(dtype)


def l2_normalize(x: Array, *, epsilon: float = 1e-12) -> Array:
    """Scales `[..., D]` to unit length over the last axis, in float32.

    A vector shorter than `sqrt(epsilon)` stays below unit length, so that zero stays
    zero and has a finite gradient.
    """
    x = x.astype(jnp.float32)
    norm_squared = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(norm_squared, epsilon))


def check_prefix(embed_prefix: int, embedding_dim: int) -> None:
    """Checks the number of an embedding's first numbers that are kept.

    Raises:
      ValueError: It is negative or above the length of an embedding.
    """
    if not 0 <= embed_prefix <= embedding_dim:
        raise ValueError(
            f"embed_prefix must be from 0 (all) to {embedding_dim}, the length of an "
            f"embedding, got {embed_prefix}."
        )


def shorten(embeddings: Array, num: int) -> Array:
    """Returns the first `num` numbers of `[..., D]`, scaled to length 1.

    0 keeps all as they are.
    """
    return l2_normalize(embeddings[..., :num]) if num else embeddings


def local_response_norm(
    x: Array, *, window: int = 5, bias: float = 2.0, alpha: float = 1e-4,
    beta: float = 0.75,
) -> Array:  # fmt: skip
    r"""Divides each channel by the energy of its neighbours: `[..., C] -> [..., C]`.

    .. math::
      x_c / (k + \alpha \sum_{j = c - n/2}^{c + n/2} x_j^2)^\beta

    in float32. Some libraries divide :math:`\alpha` by the window; here it is not.

    References:
      Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural
      Networks, 2012, section 3.3, which gives k = 2, n = 5, 1e-4 and .75.
    """
    squares = jnp.square(x.astype(jnp.float32))
    half = window // 2
    padded = jnp.pad(squares, ((0, 0),) * (x.ndim - 1) + ((half, half),))
    total = sum(padded[..., i : i + x.shape[-1]] for i in range(window))
    return (x * (bias + alpha * total) ** -beta).astype(x.dtype)


def shift_four_ways(images: Array, pixels: int) -> Array:
    """Returns images as they are, and shifted up, down, left and right.

    Args:
      images: `[B, H, W, C]`, of any type.
      pixels: Length of the shift, at least 0; edge pixels are repeated.

    Returns:
      `[5, B, H, W, C]`.
    """
    height, width = images.shape[1:3]
    sides = ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0))
    padded = jnp.pad(images, sides, mode="edge")
    starts = ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2))
    return jnp.stack(
        [
            padded[:, y * pixels : y * pixels + height, x * pixels : x * pixels + width]
            for y, x in starts
        ]
    )


def subsample(images: Array, factor: int) -> Array:
    """Shrinks `[B, H, W, C]` by a whole factor; each pixel is a mean of input pixels.

    Sizes round up, as in the paper: 225 pixels subsampled 4:1 are 57.
    """
    before = images.shape[1:3]
    after = [-(-size // factor) for size in before]
    # As `jax.image.resize`, which would also resample the axes that do not change.
    return jax.image.scale_and_translate(
        images,
        (images.shape[0], *after, images.shape[3]),
        spatial_dims=(1, 2),
        scale=jnp.array(after, jnp.float32) / jnp.array(before, jnp.float32),
        translation=jnp.zeros(2),
        method="linear",
        antialias=True,
    )


def check_options(
    name: str, values: object, *, options: Sequence[str], needed: Sequence[str]
) -> None:
    """Checks that a dict of options has those that are needed, and no unknown ones.

    Args:
      name: Name of the dict, for messages.
      values: The dict, or whatever the user gave in its place.
      options: Names of all options.
      needed: Names of those that have no default.

    Raises:
      ValueError: It is no dict, or an option is missing or unknown.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{name}={values!r} must be a dict of options.")
    for names, verb in (
        ([option for option in values if option not in options], "has"),
        ([option for option in needed if option not in values], "lacks"),
    ):
        if names:
            raise ValueError(
                f"{name} {verb} {', '.join(map(repr, names))}; its options are "
                f"{', '.join(options)}, and {', '.join(needed)} are needed."
            )


def check_counts(**options: object) -> None:
    """Checks sizes, strides and numbers of channels.

    Args:
      **options: Whole numbers or sequences of them, by name of the option.

    Raises:
      ValueError: One is not a whole number of at least 1.
    """
    for name, value in options.items():
        is_one = not isinstance(value, Sequence) or isinstance(value, str)
        for number in (value,) if is_one else value:
            if not isinstance(number, numbers.Integral) or number < 1:
                raise ValueError(
                    f"{name} must be "
                    + ("a whole number" if is_one else "whole numbers")
                    + f" of at least 1, got {value!r}."
                )


def check_dropout_keep(keep: float) -> None:
    """Checks the probability to keep a value.

    Raises:
      ValueError: It is not in (0, 1].
    """
    if not 0.0 < keep <= 1.0:
        raise ValueError(
            "dropout_keep must be above 0 and at most 1 (the share of values that are "
            f"kept; 1 for no dropout), got {keep}."
        )


def check_image_size(trunk: str, image_size: int, least: int) -> None:
    """Checks that an image has pixels left at the end of a trunk.

    Raises:
      ValueError: It is smaller than `least` pixels.
    """
    if image_size < least:
        raise ValueError(
            f"image_size must be at least {least} for the trunk {trunk}, got "
            f"{image_size}; choose larger images, or convnet, which takes any size."
        )
