"""Loss of binary codes, the signs of embeddings, by a smooth approximation of them."""

from collections.abc import Mapping
import math
from typing import Any

import jax
import jax.numpy as jnp

from deeprank_jax.losses.base import Loss
from deeprank_jax.losses.weighted_sum import WeightedSum

Array = jax.Array

# Least squared length of a code, where an embedding is 0.
_EPSILON = 1e-12


def soft_codes(embeddings: Array, sharpness: float) -> Array:
    r"""Returns unit vectors near the corners of a cube, the binary codes.

    .. math::
      c / \|c\|, \quad c = \tanh(\beta \sqrt{K} x)

    The numbers of a unit vector `x` are about :math:`1 / \sqrt K` large. The inner
    product of two codes is `1 - 2 h / K` for a Hamming distance `h`.

    Args:
      embeddings: `[..., K]` float, unit vectors `x`.
      sharpness: Sharpness `beta`; the larger, the nearer to the signs.

    Returns:
      `[..., K]` of the same type.
    """
    codes = jnp.tanh(sharpness * embeddings.shape[-1] ** 0.5 * embeddings)
    squares = jnp.sum(jnp.square(codes), axis=-1, keepdims=True)
    return codes * jax.lax.rsqrt(jnp.maximum(squares, _EPSILON))


class Hashing:
    """Weighted sum of losses of `soft_codes` in place of embeddings.

    The signs of the embeddings are then binary codes that are compared by Hamming
    distance; the evaluator `codes` measures them. With `config.model.embedding_norm`
    each bit is at the start of training 1 for about half of the images. For example,
    `dict(name="hashing", terms=dict(multi_similarity={}))`.

    References:
      Cao et al., HashNet: Deep Learning to Hash by Continuation, 2017,
      https://arxiv.org/abs/1702.00758, with a constant sharpness.
    """

    outputs = "embeddings"
    learns_codes = True

    def __init__(
        self, *, terms: Mapping[str, tuple[float, Loss]], sharpness: float = 2.0
    ):
        """Creates the loss.

        Args:
          terms: Losses by name, whose weighted sum is that of the codes; see
            `WeightedSum`.
          sharpness: Sharpness of the codes, above 0 and finite.

        Raises:
          ValueError: The terms do not fit, or the sharpness is out of range.
        """
        if not 0 < sharpness < math.inf:
            raise ValueError(f"sharpness must be above 0 and finite, got {sharpness}.")
        self._loss, self._sharpness = WeightedSum(terms=terms), sharpness

    def __call__(
        self,
        outputs: Array,
        batch: Mapping[str, Any],
        *,
        step: Array | int,
        key: Array,
    ) -> Array:
        """Returns the losses `[B]`, one per group."""
        of_codes = dict(batch)
        if memory := batch.get("memory"):
            codes = soft_codes(memory["embeddings"], self._sharpness)
            of_codes["memory"] = {**memory, "embeddings": codes}
        codes = soft_codes(outputs, self._sharpness)
        return self._loss(codes, of_codes, step=step, key=key)

    def describe(self) -> str:
        """Returns the loss of the codes, with their sharpness."""
        return f"{self._loss.describe()}, of codes of sharpness {self._sharpness:g}"
