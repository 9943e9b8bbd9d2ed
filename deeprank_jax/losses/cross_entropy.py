"""Softmax over classes: the loss of the first stage, and how often it is right."""

import jax
import jax.numpy as jnp

Array = jax.Array

# How many guesses count, in what is reported.
TOP = (1, 5)


def softmax_cross_entropy(
    logits: Array, labels: Array, *, label_smoothing: float = 0.0
) -> Array:
    r"""Cross entropy with a target that is spread a little over all classes.

    .. math::
      -(1 - s) \log p_y - \frac{s}{K} \sum_k \log p_k

    Args:
      logits: `[..., K]` float.
      labels: `[...]` int, from 0 to `K - 1`.
      label_smoothing: `s`, in [0, 1).

    Returns:
      `[...]` float32.

    Raises:
      ValueError: the smoothing is out of its range.

    References:
      Szegedy et al., Rethinking the Inception Architecture for Computer Vision, 2015,
      https://arxiv.org/abs/1512.00567, section 7.
    """
    if not 0.0 <= label_smoothing < 1.0:
        raise ValueError(
            "config.classification.label_smoothing must be at least 0 and below 1, got "
            f"{label_smoothing}."
        )
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    own = jnp.take_along_axis(log_p, labels[..., None], axis=-1)[..., 0]
    return -(1.0 - label_smoothing) * own - label_smoothing * jnp.mean(log_p, axis=-1)


def is_in_top(logits: Array, labels: Array, k: int) -> Array:
    """Returns whether fewer than `k` classes are more likely than the right one.

    Args:
      logits: `[..., K]` float.
      labels: `[...]` int, from 0 to `K - 1`.
      k: how many guesses count.

    Returns:
      `[...]` float32, 0 or 1. Classes as likely as the right one count as more likely,
      so that a network that says the same of all is never right; not finite is 0.
    """
    own = jnp.take_along_axis(logits, labels[..., None], axis=-1)
    above = jnp.sum(logits > own, axis=-1)
    level = jnp.sum(logits == own, axis=-1) - 1
    right = (above + level < k) & jnp.all(jnp.isfinite(logits), axis=-1)
    return right.astype(jnp.float32)
