"""The parts that several networks share."""

import jax
import jax.numpy as jnp

Array = jax.Array


def l2_normalize(x: Array, *, epsilon: float = 1e-12) -> Array:
    """Scales `[..., D]` to unit length over the last axis, in float32.

    A vector shorter than `sqrt(epsilon)` is shortened, not blown up, so that zero
    has value zero and a finite gradient.
    """
    x = x.astype(jnp.float32)
    norm_squared = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(norm_squared, epsilon))


def subsample(images: Array, factor: int) -> Array:
    """Shrinks `[B, H, W, C]` by a whole factor, each output pixel a mean of inputs.

    Sizes round up, as in the paper: 225 pixels subsampled 4:1 are 57.
    """
    height, width = (-(-size // factor) for size in images.shape[1:3])
    shape = (images.shape[0], height, width, images.shape[3])
    return jax.image.resize(images, shape, "linear", antialias=True)
