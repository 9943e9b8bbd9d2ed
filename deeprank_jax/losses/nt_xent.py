"""NT-Xent, the loss of SimCLR: two views of each image, and no labels."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from deeprank_jax.losses.supcon import SupCon

Array = jax.Array


class NTXent(SupCon):
    r"""Normalized, temperature-scaled cross entropy of two views of each image.

    .. math::
      \ell_i = -\ln \frac{e^{s_{ij} / \tau}}{\sum_{k \ne i} e^{s_{ik} / \tau}}

    with the cosine similarity :math:`s`, the other view :math:`j` of the same image,
    and all other views :math:`k` of the batch, on all devices. It is `supcon_loss` with
    the image itself for a class: where an epoch ends within a batch, an image may be
    drawn twice, and its other views are positives, too.

    References:
      Chen et al., A Simple Framework for Contrastive Learning of Visual
      Representations, 2020, https://arxiv.org/abs/2002.05709, equation (1); there the
      temperature is .1 on ImageNet and .5 on CIFAR-10.
    """

    title = "NT-Xent"
    outputs = "projections"
    num_views = 2

    def __init__(self, *, temperature: float = 0.1, axis_name: str | None = None):
        """Creates the loss.

        Args:
          temperature: Temperature `tau` of the softmax, above 0.
          axis_name: Name of the axis of devices that share their views; None for one
            device alone.

        Raises:
          ValueError: The temperature is not positive.
        """
        super().__init__(
            temperature=temperature,
            relevance_fn=_is_same_image,
            min_relevance_gap=0.5,
            axis_name=axis_name,
        )

    def __call__(
        self,
        outputs: Array,
        batch: Mapping[str, Any],
        *,
        step: Array | int,
        key: Array,
    ) -> Array:
        """Returns the losses `[B]`, one per image, the mean of its two views.

        Args:
          outputs: `[B, 2, D]` float, unit vectors of the views of this device's images.
          batch: Arrays of this device's share of the batch, with `instances [B, 2]`,
            the numbers of the images.
          step: `[]` int, unused.
          key: Random key, unused.
        """
        attributes = {"attributes": batch["instances"][..., None]}
        return super().__call__(outputs, attributes, step=step, key=key)


def _is_same_image(a: Array, b: Array) -> Array:
    """Returns 1 where numbers of images `[..., 1]` are equal, else 0."""
    return jnp.all(a == b, axis=-1).astype(jnp.float32)
