"""Alternative forms of network operations, faster on XLA:CPU.

Each has the values and gradients of the plain form, which GPU and TPU use:
`jax.lax.platform_dependent` selects the form when a step is lowered, so that an export
for another platform has the plain one.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import contextvars
import functools
from typing import Any, TypeVar

from flax import nnx
import jax
import jax.numpy as jnp

Array = jax.Array
# A convolution of at most so many output pixels is a matrix product on CPU.
_FEW_PIXELS = 4

Padding = str | Sequence[tuple[int, int]]
Result = TypeVar("Result")

_plain_only = contextvars.ContextVar("plain_only", default=False)


@contextlib.contextmanager
def plain_forms() -> Iterator[None]:
    """Traces the plain forms only, for converters without platform-dependent code."""
    token = _plain_only.set(True)
    try:
        yield
    finally:
        _plain_only.reset(token)


def _choose(
    *arrays: Array, cpu: Callable[..., Result], default: Callable[..., Result]
) -> Result:
    """Returns the result of the form for the platform."""
    if _plain_only.get():
        return default(*arrays)
    return jax.lax.platform_dependent(*arrays, cpu=cpu, default=default)


def max_pool(x: Array, window: int, stride: int, padding: Padding = "SAME") -> Array:
    """Max-pools `[B, H, W, C]`.

    On CPU the gradient of `reduce_window` is slow, that of a maximum of strided
    slices is fast. Only the gradients at several equal maxima differ.

    Args:
      x: `[B, H, W, C]` images.
      window: Height and width of the window.
      stride: Stride of both axes.
      padding: `"SAME"`, `"VALID"` or a pair of numbers for each axis.
    """
    if window == stride == 1:
        return x
    options = {"window": window, "stride": stride, "padding": padding}
    return _choose(
        x,
        cpu=functools.partial(_max_pool_by_slices, **options),
        default=functools.partial(_max_pool, **options),
    )


def _max_pool(x: Array, *, window: int, stride: int, padding: Padding) -> Array:
    return nnx.max_pool(
        x, window_shape=(window, window), strides=(stride, stride), padding=padding
    )


def _max_pool_by_slices(
    x: Array, *, window: int, stride: int, padding: Padding
) -> Array:
    pads = _pads(x, window, stride, padding)
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=-jnp.inf)
    return functools.reduce(jnp.maximum, _strided_slices(x, window, stride))


def conv_general_dilated(
    x: Array, kernel: Array, strides: Sequence[int], padding: Padding, **options: Any
) -> Array:
    """Convolves as `jax.lax.conv_general_dilated`, which `nnx.Conv` calls.

    On CPU the convolution of an image of a few pixels takes a hundred times as long as
    the equivalent matrix product.

    Args:
      x: `[B, H, W, C]` images.
      kernel: `[k, k, C / groups, D]` weights.
      strides: Strides of both axes.
      padding: `"SAME"`, `"VALID"` or a pair of numbers for each axis.
      **options: Options of `jax.lax.conv_general_dilated`.
    """
    plain = functools.partial(
        jax.lax.conv_general_dilated,
        window_strides=strides,
        padding=padding,
        **options,
    )
    window, (stride, _) = kernel.shape[0], strides
    pads = _pads(x, window, stride, padding)
    out = [
        (size + sum(pad) - window) // stride + 1
        for size, pad in zip(x.shape[1:3], pads, strict=True)
    ]
    is_simple = (
        options.get("feature_group_count", 1) == 1
        and options.get("precision") is None
        and all(
            set(options.get(name) or (1,)) == {1}
            for name in ("lhs_dilation", "rhs_dilation")
        )
    )
    if window == 1 or not is_simple or out[0] * out[1] > _FEW_PIXELS:
        return plain(x, kernel)
    by_product = functools.partial(_conv_by_product, stride=stride, pads=tuple(pads))
    return _choose(x, kernel, cpu=by_product, default=plain)


def _conv_by_product(
    x: Array, kernel: Array, *, stride: int, pads: Sequence[tuple[int, int]]
) -> Array:
    window, _, _, width = kernel.shape
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    patches = jnp.concatenate(_strided_slices(padded, window, stride), axis=-1)
    return patches @ kernel.reshape(-1, width)


def depthwise_conv(x: Array, kernel: Array, stride: int) -> Array:
    """Convolves each channel with its own kernel, with SAME padding.

    On CPU a convolution with as many groups as channels takes some forty times as
    long as a sum of shifted products.

    Args:
      x: `[B, H, W, C]` images.
      kernel: `[k, k, 1, C]` weights.
      stride: Stride of both axes.
    """
    return _choose(
        x,
        kernel,
        cpu=functools.partial(_depthwise_by_slices, stride),
        default=functools.partial(_depthwise, stride=stride),
    )


def _depthwise(x: Array, kernel: Array, *, stride: int) -> Array:
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _depthwise_by_slices(stride: int, x: Array, kernel: Array) -> Array:
    window, channels = kernel.shape[0], kernel.shape[-1]
    taps = kernel.reshape(window * window, 1, 1, 1, channels)
    slices = _padded_slices(x, window, stride)
    products = (tap * part for tap, part in zip(taps, slices, strict=True))
    return functools.reduce(jnp.add, products)


def _depthwise_forward(
    stride: int, x: Array, kernel: Array
) -> tuple[Array, tuple[Array, Array]]:
    return _depthwise_by_slices(stride, x, kernel), (x, kernel)


def _depthwise_backward(
    stride: int, saved: tuple[Array, Array], grad: Array
) -> tuple[Array, Array]:
    x, kernel = saved
    window = kernel.shape[0]
    _, vjp = jax.vjp(lambda x: _depthwise_by_slices.fun(stride, x, kernel), x)

    def products(x: Array, grad: Array) -> list[Array]:
        return [part * grad for part in _padded_slices(x, window, stride)]

    sums = _channel_sums_by_scan(products, x, grad)
    return vjp(grad)[0], jnp.stack(sums).reshape(kernel.shape).astype(kernel.dtype)


_depthwise_by_slices.defvjp(_depthwise_forward, _depthwise_backward)


def channel_sums(
    fn: Callable[..., Sequence[Array]], *arrays: Array
) -> tuple[Array, ...]:
    """Sums the results of `fn` over all axes but the last, in float32.

    On CPU a reduction that keeps the innermost axis is up to twenty times slower than
    adding up one image after the other.

    Args:
      fn: Function from arrays `[B, H, W, C]` to several of that shape, which maps each
        image by itself.
      *arrays: `[B, H, W, C]` arguments of `fn`.

    Returns:
      `[C]` for each array that `fn` returns.
    """
    return _choose(
        *arrays,
        cpu=functools.partial(_channel_sums_by_scan, fn),
        default=functools.partial(_channel_sums, fn),
    )


def _channel_sums(
    fn: Callable[..., Sequence[Array]], *arrays: Array
) -> tuple[Array, ...]:
    return tuple(jnp.sum(x, (0, 1, 2), dtype=jnp.float32) for x in fn(*arrays))


def _channel_sums_by_scan(
    fn: Callable[..., Sequence[Array]], *arrays: Array
) -> tuple[Array, ...]:
    of_image = lambda images: tuple(
        x[0].astype(jnp.float32) for x in fn(*(image[None] for image in images))
    )

    def add(totals: tuple[Array, ...], images: tuple[Array, ...]):
        return tuple(map(jnp.add, totals, of_image(images))), None

    first = jax.eval_shape(lambda *a: of_image(tuple(x[0] for x in a)), *arrays)
    zeros = tuple(jnp.zeros(x.shape, x.dtype) for x in first)
    totals, _ = jax.lax.scan(add, zeros, arrays)
    return tuple(jnp.sum(x, (0, 1)) for x in totals)


@jax.custom_vjp
def channel_moments(x: Array) -> tuple[Array, Array]:
    """Returns the mean and the mean square of each channel, float32.

    Args:
      x: `[B, H, W, C]` images.

    Returns:
      `[C]` and `[C]`.
    """
    sums = channel_sums(lambda x: (x, jnp.square(x.astype(jnp.float32))), x)
    num = x.size // x.shape[-1]
    return sums[0] / num, sums[1] / num


def _moments_forward(x: Array) -> tuple[tuple[Array, Array], Array]:
    return channel_moments(x), x


def _moments_backward(x: Array, grads: tuple[Array, Array]) -> tuple[Array]:
    of_mean, of_square = (_along_channels(grad, x) for grad in grads)
    num = x.size // x.shape[-1]
    return (((of_mean + 2.0 * x * of_square) / num).astype(x.dtype),)


channel_moments.defvjp(_moments_forward, _moments_backward)


@jax.custom_vjp
def normalize_channels(x: Array, mean: Array, scale: Array, bias: Array) -> Array:
    """Returns `(x - mean) * scale + bias` in the type of `x`.

    The gradients of the three are sums over all pixels, see `channel_sums`.

    Args:
      x: `[B, H, W, C]` images.
      mean: `[C]` float32.
      scale: `[C]` float32.
      bias: `[C]` float32.
    """
    mean, scale, bias = (_along_channels(v, x) for v in (mean, scale, bias))
    return ((x - mean) * scale + bias).astype(x.dtype)


def _normalize_forward(
    x: Array, mean: Array, scale: Array, bias: Array
) -> tuple[Array, tuple[Array, Array, Array]]:
    return normalize_channels(x, mean, scale, bias), (x, mean, scale)


def _normalize_backward(
    saved: tuple[Array, Array, Array], grad: Array
) -> tuple[Array, Array, Array, Array]:
    x, mean, scale = saved
    of_x = (grad * _along_channels(scale, x)).astype(x.dtype)
    # Centred before it is summed: the sum of x * grad alone would cancel.
    centred = lambda x, grad: (grad, (x - _along_channels(mean, x)) * grad)
    total, product = channel_sums(centred, x, grad)
    return of_x, -scale * total, product, total


normalize_channels.defvjp(_normalize_forward, _normalize_backward)


def _along_channels(vector: Array, x: Array) -> Array:
    return vector.reshape((1,) * (x.ndim - 1) + vector.shape)


def _strided_slices(x: Array, window: int, stride: int) -> list[Array]:
    """Returns the inputs of each position of the window, `window ** 2` arrays."""
    height, width = ((size - window) // stride * stride + 1 for size in x.shape[1:3])
    return [
        x[:, i : i + height : stride, j : j + width : stride]
        for i in range(window)
        for j in range(window)
    ]


def _padded_slices(x: Array, window: int, stride: int) -> list[Array]:
    pads = _pads(x, window, stride, "SAME")
    return _strided_slices(jnp.pad(x, ((0, 0), *pads, (0, 0))), window, stride)


def _pads(
    x: Array, window: int, stride: int, padding: Padding
) -> Sequence[tuple[int, int]]:
    if padding == "SAME":
        return [same_padding(size, window, stride) for size in x.shape[1:3]]
    return [(0, 0)] * 2 if isinstance(padding, str) else padding


def same_padding(size: int, window: int, stride: int) -> tuple[int, int]:
    """Returns the padding before and after an axis that SAME adds."""
    total = max((-(-size // stride) - 1) * stride + window - size, 0)
    return total // 2, total - total // 2
