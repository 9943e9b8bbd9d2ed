"""Center loss: cross entropy, and the distance of an image to its class's center.

References:
  Wen et al., A Discriminative Feature Learning Approach for Deep Face Recognition,
  2016, https://doi.org/10.1007/978-3-319-46478-7_31.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from deeprank_jax.losses.cross_entropy import CrossEntropy

Array = jax.Array


def center_distance(features: Array, centers: Array, labels: Array) -> Array:
    r"""Half the squared distance of features to the center of their class.

    .. math::
      \frac{1}{2} \lVert x - c_y \rVert^2

    Args:
      features: `[..., F]` float, features `x`.
      centers: `[K, F]` float, center `c` of each class; no gradient flows to it.
      labels: `[...]` int, labels `y` from 0 to `K - 1`.

    Returns:
      `[...]` float32.
    """
    centers = jax.lax.stop_gradient(centers)[labels]
    return 0.5 * jnp.sum((features.astype(jnp.float32) - centers) ** 2, axis=-1)


def move_centers(
    centers: Array,
    features: Array,
    labels: Array,
    *,
    rate: float,
    axis_name: str | None,
) -> Array:
    r"""Returns the centers, moved towards the images of a batch.

    .. math::
      c_j \leftarrow c_j - \alpha \frac{\sum_{i: y_i = j} (c_j - x_i)}
      {1 + \lvert \{i: y_i = j\} \rvert}

    Args:
      centers: `[K, F]` float, center of each class.
      features: `[B, F]` float, features of this device's images.
      labels: `[B]` int, their labels.
      rate: Rate `alpha`.
      axis_name: Name of the axis of devices, whose images count as one batch; None for
        this device alone.

    Returns:
      `[K, F]` float32, the same on all devices.
    """
    features = jax.lax.stop_gradient(features).astype(jnp.float32)
    counts = jnp.zeros(len(centers)).at[labels].add(1.0)
    totals = jnp.zeros_like(centers).at[labels].add(features)
    if axis_name is not None:
        counts, totals = jax.lax.psum((counts, totals), axis_name)
    counts = counts[:, None]
    return centers - rate * (counts * centers - totals) / (1.0 + counts)


class Center(CrossEntropy):
    """Cross entropy of single images with `center_distance`, `labels [B, 1]`.

    The centers, `[K, F]`, are kept with the network's state as `memory["centers"]`.
    They begin at 0, and are moved after each batch by `move_centers`.
    """

    outputs = "logits_and_features"

    def __init__(
        self,
        *,
        weight: float = 0.003,
        rate: float = 0.5,
        label_smoothing: float = 0.0,
        axis_name: str | None = None,
    ):
        """Creates the loss.

        Args:
          weight: Weight `lambda` of the distance.
          rate: Rate `alpha` of the centers, above 0 and at most 1.
          label_smoothing: Share of the target that is spread over all classes.
          axis_name: Name of the axis of devices that share the centers; None for one
            device alone.

        Raises:
          ValueError: A value is out of its range.
        """
        super().__init__(label_smoothing=label_smoothing)
        if not 0 <= weight < float("inf"):
            raise ValueError(f"weight must be at least 0 and finite, got {weight}.")
        if not 0 < rate <= 1:
            raise ValueError(f"rate must be above 0 and at most 1, got {rate}.")
        self._weight = weight
        self._rate = rate
        self._axis_name = axis_name

    def __call__(
        self,
        outputs: Array,
        batch: Mapping[str, Any],
        *,
        step: Array | int,
        key: Array,
    ) -> Array:
        """Returns the losses `[B]`, one per image."""
        centers = batch["memory"]["centers"]
        logits, features = _split(outputs, len(centers))
        distances = center_distance(features[:, 0], centers, batch["labels"][:, 0])
        entropy = super().__call__(logits, batch, step=step, key=key)
        return entropy + self._weight * distances

    @staticmethod
    def create_memory(num_classes: int, num_features: int) -> dict[str, Array]:
        """Returns the centers before the first batch, `[K, F]`."""
        return {"centers": jnp.zeros((num_classes, num_features), jnp.float32)}

    def remember(
        self, memory: Mapping[str, Array], outputs: Array, batch: Mapping[str, Any]
    ) -> dict[str, Array]:
        """Returns the memory after a batch.

        Args:
          memory: Memory before the batch, `centers [K, F]`.
          outputs: `[B, 1, K + F]` float, logits and features of this device's images.
          batch: Arrays of this device's share of the batch, with `labels [B, 1]`.
        """
        centers = memory["centers"]
        _, features = _split(outputs, len(centers))
        moved = move_centers(
            centers,
            features[:, 0],
            batch["labels"][:, 0],
            rate=self._rate,
            axis_name=self._axis_name,
        )
        return {"centers": moved}

    def describe(self) -> str:
        """Returns the loss and the weight of the centers."""
        return f"{super().describe()}, distance to centers by {self._weight:g}"


def _split(outputs: Array, num_classes: int) -> tuple[Array, Array]:
    """Returns the logits and the features of joined outputs."""
    return outputs[..., :num_classes], outputs[..., num_classes:]
