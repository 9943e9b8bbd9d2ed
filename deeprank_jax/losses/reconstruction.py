"""Loss of reconstructed images: their mean squared error."""

from collections.abc import Mapping
import math
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array


def target_images(images: Array, size: int) -> Array:
    """Returns images as targets of a reconstruction, pixels from 0 to 1.

    A smaller image is that of `models.layers.subsample`, each pixel a weighted mean.

    Args:
      images: `[..., H, W, 3]`, pixels from 0 to 255.
      size: Height and width `S` of the targets, at most `H` and `W`.

    Returns:
      `[..., S, S, 3]` float32.
    """
    targets = images.astype(jnp.float32) / 255.0
    shape = (*images.shape[:-3], size, size, images.shape[-1])
    if shape == images.shape:
        return targets
    return jax.image.resize(targets, shape, method="linear", antialias=True)


class Reconstruction:
    r"""Mean squared error of a reconstruction.

    .. math::
      \frac{1}{3 S^2} \sum_i (y_i - x_i)^2

    over the pixels and channels of the image `x`, which are from 0 to 1, at the size of
    the reconstruction `y`.

    References:
      Vincent et al., Stacked Denoising Autoencoders: Learning Useful Representations in
      a Deep Network with a Local Denoising Criterion, 2010,
      https://jmlr.org/papers/v11/vincent10a.html.
    """

    outputs = "images"

    def __call__(
        self,
        outputs: Array,
        batch: Mapping[str, Any],
        *,
        step: Array | int,
        key: Array,
    ) -> Array:
        """Returns the losses `[B]`, the mean over the images of a group.

        Args:
          outputs: `[B, n, S * S * 3]` float, reconstructions, row by row.
          batch: Arrays of this device's share of the batch, with the images without
            noise, `images [B, n, H, W, 3]`.
          step: `[]` int, unused.
          key: Random key, unused.
        """
        del step, key
        targets = target_images(batch["images"], side_of(outputs.shape[-1]))
        errors = jnp.square(outputs - targets.reshape(outputs.shape))
        return jnp.mean(errors, axis=(1, 2))

    def describe(self) -> str:
        """Returns the name of the loss."""
        return "mean squared error of the reconstruction"


def side_of(num: int) -> int:
    """Returns height and width `S` of reconstructions of `S * S * 3` numbers.

    Raises:
      ValueError: They are not those of square images.
    """
    side = math.isqrt(num // 3)
    if 3 * side**2 != num:
        raise ValueError(
            f"outputs of {num} numbers are not those of a square image "
            "with three channels: the network has no decoder."
        )
    return side
