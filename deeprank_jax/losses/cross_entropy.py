"""Cross entropy over classes, the loss of the first stage, and its accuracy."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

Array = jax.Array

# Numbers of guesses that count, in the reported accuracies.
TOP = (1, 5)


def softmax_cross_entropy(
    logits: Array, labels: Array, *, label_smoothing: float = 0.0
) -> Array:
    r"""Cross entropy with a target that is spread a little over all classes.

    .. math::
      -(1 - s) \log p_y - \frac{s}{K} \sum_k \log p_k

    Args:
      logits: `[..., K]` float logits.
      labels: `[...]` int, labels from 0 to `K - 1`.
      label_smoothing: Share `s` of the target that is spread over all classes, in
        [0, 1).

    Returns:
      `[...]` float32.

    Raises:
      ValueError: The smoothing is out of its range.

    References:
      Szegedy et al., Rethinking the Inception Architecture for Computer Vision, 2015,
      https://arxiv.org/abs/1512.00567, section 7.
    """
    check_smoothing(label_smoothing)
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    log_p_label = jnp.take_along_axis(log_p, labels[..., None], axis=-1)[..., 0]
    return -(1.0 - label_smoothing) * log_p_label - label_smoothing * jnp.mean(
        log_p, axis=-1
    )


def is_in_top(logits: Array, labels: Array, k: int) -> Array:
    """Returns where fewer than `k` classes are more likely than the label.

    Args:
      logits: `[..., K]` float logits.
      labels: `[...]` int, labels from 0 to `K - 1`.
      k: Number of guesses that count.

    Returns:
      `[...]` float32, 0 or 1. Classes as likely as the label count as more likely,
      so that a network with equal logits is never right; non-finite logits give 0.
    """
    label_logits = jnp.take_along_axis(logits, labels[..., None], axis=-1)
    num_above = jnp.sum(logits > label_logits, axis=-1)
    num_equal = jnp.sum(logits == label_logits, axis=-1) - 1
    right = (num_above + num_equal < k) & jnp.all(jnp.isfinite(logits), axis=-1)
    return right.astype(jnp.float32)


class CrossEntropy:
    """Softmax cross entropy of single images, `labels [B, 1]`."""

    outputs = "logits"

    def __init__(self, *, label_smoothing: float = 0.1):
        """Creates the loss.

        Args:
          label_smoothing: Share of the target that is spread over all classes.

        Raises:
          ValueError: The share is not in [0, 1).
        """
        check_smoothing(label_smoothing)
        self.label_smoothing = label_smoothing

    def __call__(
        self,
        outputs: Array,
        batch: Mapping[str, Array],
        *,
        step: Array | int,
        key: Array,
    ) -> Array:
        """Returns the losses `[B]`, one per image."""
        del step, key
        return softmax_cross_entropy(
            outputs[:, 0], batch["labels"][:, 0], label_smoothing=self.label_smoothing
        )

    def describe(self) -> str:
        """Returns the loss and its smoothing."""
        return f"cross entropy, label smoothing {self.label_smoothing:g}"


def check_smoothing(label_smoothing: float) -> None:
    """Checks a share of label smoothing.

    Args:
      label_smoothing: Share of the target that is spread over all classes.

    Raises:
      ValueError: It is not in [0, 1).
    """
    if not 0.0 <= label_smoothing < 1.0:
        raise ValueError(
            f"label_smoothing must be at least 0 and below 1, got {label_smoothing}: "
            "it is the share of the target that is spread over all classes."
        )
