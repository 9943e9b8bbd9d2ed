"""Distillation: similarities within a batch, as another model sees them."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from deeprank_jax.losses import batch_mining
from deeprank_jax.losses.pairs import LOWEST

Array = jax.Array

# Rounding of a product of two equal unit vectors.
_SAME = 1e-5


def distillation_loss(
    similarities: Array,
    teacher_similarities: Array,
    is_other: Array,
    *,
    temperature: float = 0.1,
    teacher_temperature: float = 0.1,
) -> Array:
    r"""Divergence of an image's neighbours from those that the teacher sees.

    .. math::
      \sum_j q_j \ln \frac{q_j}{p_j}, \quad
      p_j = \frac{e^{s_j / \tau}}{\sum_k e^{s_k / \tau}}, \quad
      q_j = \frac{e^{t_j / \tau_t}}{\sum_k e^{t_k / \tau_t}}

    Args:
      similarities: `[..., M]` float, cosine similarities `s` of an image to `M` others.
      teacher_similarities: `[..., M]` float, cosine similarities `t` by the teacher.
      is_other: `[..., M]` bool, False for the image itself and its copies.
      temperature: Temperature `tau`, above 0.
      teacher_temperature: Temperature `tau_t` of the teacher, above 0.

    Returns:
      `[...]` float, at least 0.

    References:
      Passalis and Tefas, Learning Deep Representations with Probabilistic Knowledge
      Transfer, 2018, https://arxiv.org/abs/1803.10837, for the distribution over the
      batch; Roth et al., Simultaneous Similarity-based Self-Distillation for Deep
      Metric Learning, 2021, https://arxiv.org/abs/2009.08348, for the
      softmax of cosine similarities.
    """
    log_p, log_q = (
        jax.nn.log_softmax(jnp.where(is_other, x / scale, LOWEST), axis=-1)
        for x, scale in (
            (similarities, temperature),
            (teacher_similarities, teacher_temperature),
        )
    )
    return jnp.sum(jnp.exp(log_q) * jnp.where(is_other, log_q - log_p, 0.0), axis=-1)


class Distillation:
    """Loss against the embeddings of a teacher: `distillation_loss`.

    The teacher's embeddings, read from `config.data.teacher`, come with each batch as
    `teacher [B, n, T]`, unit vectors. No label is used. All images of a batch are
    compared, on all devices; images that the teacher embeds alike count as one.

    Attributes:
      takes_teacher: True, as the loss takes these embeddings.
    """

    outputs = "embeddings"
    takes_teacher = True

    def __init__(
        self,
        *,
        temperature: float = 0.1,
        teacher_temperature: float = 0.1,
        axis_name: str | None = None,
    ):
        """Creates the loss.

        Args:
          temperature: Temperature of the similarities.
          teacher_temperature: Temperature of the teacher's similarities.
          axis_name: Name of the axis of devices that share their images; None for one
            device alone.

        Raises:
          ValueError: A temperature is not positive.
        """
        for name, value in (
            ("temperature", temperature),
            ("teacher_temperature", teacher_temperature),
        ):
            if not value > 0:
                raise ValueError(f"{name} must be above 0, got {value}.")
        self._temperature = temperature
        self._teacher_temperature = teacher_temperature
        self._axis_name = axis_name

    def __call__(
        self,
        outputs: Array,
        batch: Mapping[str, Array],
        *,
        step: Array | int,
        key: Array,
    ) -> Array:
        """Returns the losses `[B]`, the mean over the images of each group."""
        del step, key
        size, num_images, _ = outputs.shape
        # The vectors of the teacher travel as attributes of the images.
        images = batch_mining.gather_images(outputs, batch["teacher"], self._axis_name)
        rows = images.first + jnp.arange(size * num_images)
        losses = batch_mining.in_blocks(
            lambda rows, _: self._row_losses(images, rows),
            rows,
            rows,
            max(1, batch_mining.PAIRS // len(images.embeddings)),
        )
        return jnp.mean(losses.reshape(size, num_images), axis=1)

    def _row_losses(self, images: batch_mining.Images, rows: Array) -> Array:
        """Returns the losses `[R]` of the images in some rows."""
        by_student, by_teacher = (
            jnp.matmul(x[rows], x.T, precision=jax.lax.Precision.HIGHEST)
            for x in (images.embeddings, images.attributes)
        )
        return distillation_loss(
            by_student,
            by_teacher,
            # An image of two groups would be its own nearest neighbour.
            by_teacher < 1.0 - _SAME,
            temperature=self._temperature,
            teacher_temperature=self._teacher_temperature,
        )

    def describe(self) -> str:
        """Returns the loss with its temperatures."""
        return (
            f"distillation, temperature {self._temperature:g}, of the teacher "
            f"{self._teacher_temperature:g}"
        )
