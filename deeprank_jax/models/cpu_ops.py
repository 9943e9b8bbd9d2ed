"""Forms of network operations that XLA:CPU runs faster than its own.

Each has the values and gradients of the plain form, which GPU and TPU keep:
`jax.lax.platform_dependent` chooses when a step is lowered, so that an export for
another platform never carries the CPU's form.
"""

import functools

from flax import nnx
import jax
import jax.numpy as jnp

Array = jax.Array


def max_pool(x: Array, window: int, stride: int) -> Array:
    """Max-pools `[B, H, W, C]` with SAME padding.

    On CPU the gradient of `reduce_window` is slow, that of a maximum of strided
    slices is not. The two differ only in which of several equal maxima the gradient
    flows to.
    """
    if window == stride == 1:
        return x
    return jax.lax.platform_dependent(
        x,
        cpu=functools.partial(_max_pool_by_slices, window=window, stride=stride),
        default=functools.partial(_max_pool, window=window, stride=stride),
    )


def _max_pool(x: Array, *, window: int, stride: int) -> Array:
    return nnx.max_pool(x, (window, window), (stride, stride), padding="SAME")


def _max_pool_by_slices(x: Array, *, window: int, stride: int) -> Array:
    pads = [same_padding(size, window, stride) for size in x.shape[1:3]]
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=-jnp.inf)
    height, width = ((size - window) // stride * stride + 1 for size in x.shape[1:3])
    slices = [
        x[:, i : i + height : stride, j : j + width : stride]
        for i in range(window)
        for j in range(window)
    ]
    return functools.reduce(jnp.maximum, slices)


def same_padding(size: int, window: int, stride: int) -> tuple[int, int]:
    """Returns the padding before and after an axis that SAME adds."""
    total = max((-(-size // stride) - 1) * stride + window - size, 0)
    return total // 2, total - total // 2
