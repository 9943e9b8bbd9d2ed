"""The parts that several networks share."""

from collections.abc import Callable, Sequence
import functools
import numbers
from typing import Any

from flax import nnx
import jax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp

from deeprank_jax.models import cpu_ops

Array = jax.Array
# Creates a BatchNorm: `norm(num_features, epsilon=..., rngs=...)`.
NormFn = Callable[..., "BatchNorm"]
Padding = str | Sequence[tuple[int, int]]

# Of each channel, red, green, blue, on the scale of 0 to 255: what the weights of
# torchvision and timm were trained with.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)

# What the train step keeps when it computes the rest again.
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
      before: channels of what comes in.
      after: channels of what goes out.
      kernel: height and width.
      stride: of both axes.
      padding: `"SAME"`, `"VALID"` or a pair of numbers for each axis.
      groups: into how many the channels are split.
      use_bias: whether a bias is added.
      dtype: what it computes in; parameters stay float32.
      rngs: keys of the initial parameters.
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
    """A convolution of each channel with a kernel of its own, with SAME padding."""

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

    Statistics are float32 whatever the network computes in. The same as Flax's in all
    but speed: on CPU the sums of that one take most of a train step.

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
          num_features: `C`.
          use_running_average: normalise by the running averages and keep them, which
            `eval()` of a model turns on.
          momentum: what a step keeps of the running averages.
          epsilon: is added to the variance.
          axis_name: the mapped axis over which statistics are averaged, if any.
          rngs: is not used, there is nothing to draw.
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
            # Rounding can take a constant channel below 0.
            var = jnp.maximum(square - jnp.square(mean), 0.0)
            for running, new in ((self.mean, mean), (self.var, var)):
                kept = self._momentum * running[...]
                running[...] = kept + (1.0 - self._momentum) * jax.lax.stop_gradient(
                    new
                )
        scale = self.scale[...] * jax.lax.rsqrt(var + self._epsilon)
        return cpu_ops.normalize_channels(x, mean, scale, self.bias[...])


def dropout(x: Array, keep: float, key: Array | None) -> Array:
    """Keeps each value with probability `keep`, scaled by `1 / keep`.

    Args:
      x: any shape.
      keep: in (0, 1]. The paper's .6 is this number; elsewhere the share that is
        dropped goes by the same name.
      key: of the draws; None keeps all, as when a model is used.
    """
    if key is None or keep == 1.0:
        return x
    kept = jax.random.bernoulli(key, keep, x.shape)
    return jnp.where(kept, x / keep, 0.0).astype(x.dtype)


def fully_connected(
    before: int, after: int, *, dtype: jnp.dtype, rngs: nnx.Rngs
) -> nnx.List:
    """Returns the two layers that end AlexNet's and VGG16's trunks."""
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
    for fc, own in zip(fcs, keys, strict=True):
        x = dropout(nnx.relu(fc(x)), keep, own)
    return x


def end_block(x: Array) -> Array:
    """Marks what is kept for the backward pass when the rest is computed again."""
    return checkpoint_name(x, BLOCK_OUTPUT)


def trunk_pixels(trunk: Any, images: Array, dtype: jnp.dtype) -> Array:
    """Maps uint8 `[B, H, W, C]` to what a trunk takes pixels as.

    Args:
      trunk: says what is taken from a pixel in `pixel_mean`, and what the rest is
        divided by in `pixel_scale`: numbers by channel, or one for all.
      images: 0 to 255.
      dtype: of what is returned.
    """
    by_channel = functools.partial(jnp.broadcast_to, shape=(1, 1, 1, images.shape[-1]))
    mean, scale = (
        by_channel(jnp.asarray(x, jnp.float32))
        for x in (trunk.pixel_mean, trunk.pixel_scale)
    )
    return ((images.astype(jnp.float32) - mean) / scale).astype(dtype)


def l2_normalize(x: Array, *, epsilon: float = 1e-12) -> Array:
    """Scales `[..., D]` to unit length over the last axis, in float32.

    A vector shorter than `sqrt(epsilon)` is shortened, not blown up, so that zero
    has value zero and a finite gradient.
    """
    x = x.astype(jnp.float32)
    norm_squared = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(norm_squared, epsilon))


def local_response_norm(
    x: Array, *, window: int = 5, bias: float = 2.0, alpha: float = 1e-4,
    beta: float = 0.75,
) -> Array:  # fmt: skip
    r"""Divides each channel by what its neighbours say: `[..., C] -> [..., C]`.

    .. math::
      x_c / (k + \alpha \sum_{j = c - n/2}^{c + n/2} x_j^2)^\beta

    in float32, with :math:`\alpha` not divided by the window, as some libraries do.

    References:
      Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural
      Networks, 2012, section 3.3, which gives k = 2, n = 5, 1e-4 and .75.
    """
    squares = jnp.square(x.astype(jnp.float32))
    half = window // 2
    padded = jnp.pad(squares, ((0, 0),) * (x.ndim - 1) + ((half, half),))
    total = sum(padded[..., i : i + x.shape[-1]] for i in range(window))
    return (x * (bias + alpha * total) ** -beta).astype(x.dtype)


def subsample(images: Array, factor: int) -> Array:
    """Shrinks `[B, H, W, C]` by a whole factor, each output pixel a mean of inputs.

    Sizes round up, as in the paper: 225 pixels subsampled 4:1 are 57.
    """
    before = images.shape[1:3]
    after = [-(-size // factor) for size in before]
    # What `jax.image.resize` does, with the sizes that change told from the others.
    return jax.image.scale_and_translate(
        images,
        (images.shape[0], *after, images.shape[3]),
        spatial_dims=(1, 2),
        scale=jnp.array(after, jnp.float32) / jnp.array(before, jnp.float32),
        translation=jnp.zeros(2),
        method="linear",
        antialias=True,
    )


def check_counts(where: str, **options: Any) -> None:
    """Checks sizes, strides and numbers of channels.

    Args:
      where: the part of the config that they are of, e.g. `"config.model.trunk"`.
      **options: by name; one that is a sequence holds several.

    Raises:
      ValueError: one is no whole number of at least 1.
    """
    for name, value in options.items():
        is_one = isinstance(value, numbers.Number)
        for number in (value,) if is_one else tuple(value):
            if not isinstance(number, numbers.Integral) or number < 1:
                raise ValueError(
                    f"{where}.{name}={value} must be "
                    + ("a whole number" if is_one else "whole numbers")
                    + " of at least 1."
                )


def check_dropout_keep(keep: float) -> None:
    """Checks the share that is kept.

    Raises:
      ValueError: it is none.
    """
    if not 0.0 < keep <= 1.0:
        raise ValueError(
            f"config.model.trunk.dropout_keep={keep} must be above 0 and at most 1: it "
            "is the share that is kept, 1 for no dropout."
        )


def check_image_size(trunk: str, image_size: int, least: int) -> None:
    """Checks that an image does not shrink to nothing on its way through a trunk.

    Raises:
      ValueError: it is smaller than `least` pixels.
    """
    if image_size < least:
        raise ValueError(
            f"config.data.image_size={image_size} is too small for the trunk {trunk}, "
            f"which takes images of {least} pixels and more; convnet takes any size."
        )
