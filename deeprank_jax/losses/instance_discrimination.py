"""Instance discrimination: each image a class of its own, with a memory of all.

References:
  Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination,
  2018, https://arxiv.org/abs/1805.01978.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from deeprank_jax.losses.batch_mining import gather_images

Array = jax.Array

# Images whose noise is in memory at a time, and vectors that estimate the normaliser.
_BLOCK = 8
_NUM_ESTIMATED = 4096


class InstanceDiscrimination:
    r"""Noise-contrastive estimation of an image among all training images.

    .. math::
      -\ln h(i, v) - \sum_{k=1}^{K} \ln (1 - h(n_k, v)), \quad
      h(j, v) = \frac{P_j}{P_j + K / n}, \quad P_j = \frac{e^{f_j \cdot v / \tau}}{Z}

    with the projection :math:`v` of image :math:`i`, the vectors :math:`f` of all
    :math:`n` images in the bank, and :math:`K` uniform draws :math:`n_k`. The bank,
    `memory["bank"] [n, D]`, and the normaliser :math:`Z`, `memory["normaliser"] []`,
    are kept with the network's state. The bank begins with random unit vectors and is
    moved after each batch, see `remember`; :math:`Z` is estimated from the first batch
    and stays.

    References:
      Wu et al., Unsupervised Feature Learning via Non-Parametric Instance
      Discrimination, 2018, https://arxiv.org/abs/1805.01978, equations (4) to (8); the
      proximal term of equation (10) is left out.
    """

    outputs = "projections"
    num_views = 1

    def __init__(
        self,
        *,
        temperature: float = 0.07,
        num_noise: int = 4096,
        momentum: float = 0.5,
        axis_name: str | None = None,
    ):
        """Creates the loss.

        Args:
          temperature: Temperature `tau`, above 0; the authors take .1 on CIFAR-10.
          num_noise: Number `K` of other images that each image is told from.
          momentum: Weight of the bank's vector of an image, when its projection is
            added to it.
          axis_name: Name of the axis of devices that share the bank; None for one
            device alone.

        Raises:
          ValueError: A value is out of its range.
        """
        if not 0 < temperature < float("inf"):
            raise ValueError(
                f"temperature must be above 0 and finite, got {temperature}."
            )
        if num_noise < 1:
            raise ValueError(f"num_noise must be at least 1, got {num_noise}.")
        if not 0 <= momentum < 1:
            raise ValueError(
                f"momentum must be at least 0 and below 1, got {momentum}: at 1 the "
                "bank would stay random."
            )
        self._temperature = temperature
        self._num_noise = num_noise
        self._momentum = momentum
        self._axis_name = axis_name

    def __call__(
        self,
        outputs: Array,
        batch: Mapping[str, Any],
        *,
        step: Array | int,
        key: Array,
    ) -> Array:
        """Returns the losses `[B]`, one per image.

        Args:
          outputs: `[B, V, D]` float, unit vectors of the views of this device's images.
          batch: Arrays of this device's share of the batch, with `instances [B, V]`,
            the numbers of the images, and `memory`.
          step: `[]` int, unused.
          key: Random key of the step; with the number of an image it decides the noise.
        """
        del step
        bank = batch["memory"]["bank"]
        normaliser = self._normaliser(batch["memory"], outputs)
        offset = jnp.log(normaliser) + jnp.log(self._num_noise / len(bank))

        def of_image(image: tuple[Array, Array]) -> Array:
            views, instance = image
            noise_key = jax.random.fold_in(key, instance)
            noise = jax.random.randint(noise_key, (self._num_noise,), 0, len(bank))
            rows = bank[jnp.concatenate([instance[None], noise])]
            logits = self._logits(views, rows) - offset
            of_noise = jnp.sum(jax.nn.softplus(logits[:, 1:]), axis=1)
            return jnp.mean(jax.nn.softplus(-logits[:, 0]) + of_noise)

        # For a gradient the noise is looked up again: it is the larger part of memory.
        return jax.lax.map(
            jax.checkpoint(of_image),
            (outputs.astype(jnp.float32), batch["instances"][:, 0]),
            batch_size=_BLOCK,
        )

    @staticmethod
    def create_memory(num_classes: int, num_features: int) -> dict[str, Array]:
        """Returns the bank of random unit vectors, and no normaliser yet.

        Args:
          num_classes: Number `n` of training images, each a class of its own.
          num_features: Length `D` of a projection.
        """
        bank = jax.random.normal(jax.random.key(0), (num_classes, num_features))
        return {"bank": _normalize(bank), "normaliser": jnp.float32(0)}

    def remember(
        self, memory: Mapping[str, Array], outputs: Array, batch: Mapping[str, Any]
    ) -> dict[str, Array]:
        """Returns the memory after a batch, the same on all devices.

        The vector of an image is the direction of its weighted mean with the mean of
        the image's projections in the batch.

        Args:
          memory: Memory before the batch, `bank [n, D]` and `normaliser []`.
          outputs: `[B, V, D]` float, projections of this device's images.
          batch: Arrays of this device's share of the batch, with `instances [B, V]`.
        """
        bank = memory["bank"]
        projections, numbers, _ = gather_images(
            jax.lax.stop_gradient(outputs).astype(jnp.float32),
            batch["instances"][..., None],
            self._axis_name,
        )
        numbers = numbers[:, 0]
        same = numbers[:, None] == numbers[None]
        total = jnp.matmul(
            same.astype(jnp.float32), projections, precision=jax.lax.Precision.HIGHEST
        )
        mean = total / jnp.sum(same, axis=1, keepdims=True)
        moved = _normalize(
            self._momentum * bank[numbers] + (1.0 - self._momentum) * mean
        )
        # Once per image, so that the order of writing does not matter.
        is_first = jnp.argmax(same, axis=1) == jnp.arange(len(same))
        rows = jnp.where(is_first, numbers, len(bank))
        return {
            "bank": bank.at[rows].set(moved, mode="drop"),
            "normaliser": self._normaliser(memory, outputs),
        }

    def describe(self) -> str:
        """Returns the loss, its temperature and its noise."""
        return (
            f"instance discrimination, temperature {self._temperature:g}, "
            f"{self._num_noise} noise samples"
        )

    def _logits(self, views: Array, rows: Array) -> Array:
        """Returns the similarities `[V, R]` of unit vectors over the temperature."""
        similarities = jnp.matmul(views, rows.T, precision=jax.lax.Precision.HIGHEST)
        return similarities / self._temperature

    def _normaliser(self, memory: Mapping[str, Array], outputs: Array) -> Array:
        """Returns `Z`, `[]`: that of the memory, or of this batch if it is the first.

        It is `n` times the mean of the exponentials over the batch and, evenly over the
        bank, at most 4,096 vectors.
        """
        bank, normaliser = memory["bank"], memory["normaliser"]

        def estimate() -> Array:
            num = min(len(bank), _NUM_ESTIMATED)
            rows = np.linspace(0, len(bank) - 1, num).astype(np.int32)
            flat = jax.lax.stop_gradient(outputs).astype(jnp.float32)
            flat = flat.reshape(-1, flat.shape[-1])
            logits = self._logits(flat, bank[rows])
            return len(bank) * jnp.mean(jnp.exp(logits))

        has_none = normaliser <= 0
        estimated = jax.lax.cond(has_none, estimate, lambda: jnp.float32(0))
        if self._axis_name is not None:
            estimated = jax.lax.pmean(estimated, self._axis_name)
        return jnp.where(has_none, estimated, normaliser)


def _normalize(vectors: Array) -> Array:
    """Returns the directions of vectors `[N, D]`; 0 for a vector of zeros."""
    squared = jnp.sum(jnp.square(vectors), axis=-1, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(squared, jnp.finfo(jnp.float32).tiny))
