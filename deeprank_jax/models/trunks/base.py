"""Interface of a trunk."""

from collections.abc import Sequence
from typing import Protocol

import jax


class Trunk(Protocol):
    """Maps pixels to features; an NNX module.

    Its constructor takes `image_size`, `norm` (see `layers.NormFn`), `dtype` and `rngs`
    as keywords, those of them that it needs; its other parameters are options of
    `config.model.trunk`. A class that wraps published weights names their source under
    References.
    """

    @property
    def num_features(self) -> int:
        """Length of the features."""
        ...

    @property
    def pixel_mean(self) -> float | Sequence[float]:
        """Value subtracted from pixels of 0 to 255: one, or one per channel."""
        ...

    @property
    def pixel_scale(self) -> float | Sequence[float]:
        """Divisor of the difference: one, or one per channel."""
        ...

    def __call__(self, images: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Maps `[B, H, W, 3]` floats to `[B, num_features]`.

        Args:
          images: `[B, H, W, 3]` float, pixels less the mean, divided by the scale.
          key: Key of dropout in training; None disables it.
        """
        ...


ATTRIBUTES = ("num_features", "pixel_mean", "pixel_scale")
