"""Softmax over cosines to a vector per class: NormFace, CosFace and ArcFace.

They take the cosines between features and class vectors, and are used with
`config.task.name="classification"`, whose head then has no bias and normalises both.
"""

from collections.abc import Mapping
import math

import jax
import jax.numpy as jnp

from deeprank_jax.losses.cross_entropy import check_smoothing, softmax_cross_entropy

Array = jax.Array

# Keeps the gradient of the sine finite where an image lies on its class vector.
_EPSILON = 1e-7


def subtract_cosine_margin(cosines: Array, labels: Array, margin: Array) -> Array:
    r"""Returns cosines with :math:`\cos\theta_y - m` for the label.

    Args:
      cosines: `[..., K]` float cosines to the class vectors.
      labels: `[...]` int, labels from 0 to `K - 1`.
      margin: `[]` float, margin `m`, at least 0.

    References:
      Wang et al., CosFace: Large Margin Cosine Loss for Deep Face Recognition, 2018,
      https://arxiv.org/abs/1801.09414.
    """
    is_label = jax.nn.one_hot(labels, cosines.shape[-1], dtype=cosines.dtype)
    return cosines - margin * is_label


def add_angular_margin(cosines: Array, labels: Array, margin: Array) -> Array:
    r"""Returns cosines with :math:`\cos(\theta_y + m)` for the label.

    Beyond :math:`\theta_y = \pi - m`, where that would rise again, it is
    :math:`\cos\theta_y - m \sin m`, as in the authors' code.

    Args:
      cosines: `[..., K]` float cosines to the class vectors.
      labels: `[...]` int, labels from 0 to `K - 1`.
      margin: `[]` float, margin `m` in radians, in [0, pi / 2].

    References:
      Deng et al., ArcFace: Additive Angular Margin Loss for Deep Face Recognition,
      2019, https://arxiv.org/abs/1801.07698.
    """
    sines = jnp.sqrt(jnp.maximum(1.0 - jnp.square(cosines), _EPSILON))
    rotated = cosines * jnp.cos(margin) - sines * jnp.sin(margin)
    beyond = cosines - margin * jnp.sin(margin)
    rotated = jnp.where(cosines > -jnp.cos(margin), rotated, beyond)
    is_label = jax.nn.one_hot(labels, cosines.shape[-1], dtype=bool)
    return jnp.where(is_label, rotated, cosines)


class NormFace:
    """Softmax cross entropy of scaled cosines, `labels [B, 1]`.

    References:
      Wang et al., NormFace: L2 Hypersphere Embedding for Face Verification, 2017,
      https://arxiv.org/abs/1704.06369.
    """

    outputs = "cosines"

    def __init__(self, *, scale: float = 20.0, label_smoothing: float = 0.0):
        """Creates the loss.

        Args:
          scale: Factor of the cosines, above 0.
          label_smoothing: Share of the target that is spread over all classes.

        Raises:
          ValueError: An option is out of range.
        """
        if scale <= 0:
            raise ValueError(f"scale must be above 0, got {scale}.")
        check_smoothing(label_smoothing)
        self._scale, self._label_smoothing = scale, label_smoothing

    def __call__(
        self,
        outputs: Array,
        batch: Mapping[str, Array],
        *,
        step: Array | int,
        key: Array,
    ) -> Array:
        """Returns the losses `[B]`, one per image."""
        del key
        labels = batch["labels"][:, 0]
        cosines = self.with_margin(outputs[:, 0].astype(jnp.float32), labels, step)
        return softmax_cross_entropy(
            self._scale * cosines, labels, label_smoothing=self._label_smoothing
        )

    def with_margin(self, cosines: Array, labels: Array, step: Array | int) -> Array:
        """Returns the cosines `[B, K]` as they are: this loss has no margin."""
        del labels, step
        return cosines

    def describe(self) -> str:
        """Returns the loss and its scale."""
        return f"softmax of cosines, scale {self._scale:g}"


class CosFace(NormFace):
    """`NormFace` with a margin between cosines, `subtract_cosine_margin`."""

    name, largest_margin = "CosFace", 2.0

    def __init__(
        self,
        *,
        margin: float = 0.35,
        scale: float = 30.0,
        warmup_steps: int = 0,
        label_smoothing: float = 0.0,
    ):
        """Creates the loss.

        The authors' scale is 64; from random weights and with few classes a smaller one
        learns faster.

        Args:
          margin: Margin, at least 0.
          scale: Factor of the cosines, above 0.
          warmup_steps: Steps in which the margin rises from 0.
          label_smoothing: Share of the target that is spread over all classes.

        Raises:
          ValueError: An option is out of range.
        """
        super().__init__(scale=scale, label_smoothing=label_smoothing)
        if not 0 <= margin <= self.largest_margin:
            raise ValueError(
                f"margin must be in [0, {self.largest_margin:.3g}], got {margin}."
            )
        if warmup_steps < 0:
            raise ValueError(f"warmup_steps must be at least 0, got {warmup_steps}.")
        self.margin, self._warmup_steps = margin, warmup_steps

    def margin_at(self, step: Array | int) -> Array:
        """Returns the margin of a step, `[]` float32."""
        if not self._warmup_steps:
            return jnp.float32(self.margin)
        return self.margin * jnp.minimum(1.0, (step + 1.0) / self._warmup_steps)

    def with_margin(self, cosines: Array, labels: Array, step: Array | int) -> Array:
        """Returns the cosines `[B, K]` with the margin of the step."""
        return subtract_cosine_margin(cosines, labels, self.margin_at(step))

    def describe(self) -> str:
        """Returns the loss, its margin and its scale."""
        return f"{self.name}, margin {self.margin:g}, scale {self._scale:g}"


class ArcFace(CosFace):
    """`NormFace` with a margin between angles, `add_angular_margin`."""

    name, largest_margin = "ArcFace", math.pi / 2

    def __init__(
        self,
        *,
        margin: float = 0.5,
        scale: float = 30.0,
        sub_centers: int = 1,
        warmup_steps: int = 0,
        label_smoothing: float = 0.0,
    ):
        """Creates the loss.

        Args:
          margin: Margin in radians, in [0, pi / 2].
          scale: Factor of the cosines; see `CosFace`.
          sub_centers: Number of vectors of a class, the nearest of which counts; see
            `models.class_vectors`.
          warmup_steps: Steps in which the margin rises from 0.
          label_smoothing: Share of the target that is spread over all classes.

        Raises:
          ValueError: An option is out of range.
        """
        super().__init__(
            margin=margin,
            scale=scale,
            warmup_steps=warmup_steps,
            label_smoothing=label_smoothing,
        )
        if sub_centers < 1:
            raise ValueError(f"sub_centers must be at least 1, got {sub_centers}.")
        self.sub_centers = sub_centers

    def with_margin(self, cosines: Array, labels: Array, step: Array | int) -> Array:
        """Returns the cosines `[B, K]` with the margin of the step."""
        return add_angular_margin(cosines, labels, self.margin_at(step))

    def describe(self) -> str:
        """Returns the loss, its margin, scale and sub-centers."""
        parts = (
            f", {self.sub_centers} vectors per class" if self.sub_centers > 1 else ""
        )
        return super().describe() + parts
