"""A ranking network that is compared with a fixed binary code per class in training.

References:
  Hoe et al., One Loss for All: Deep Hashing with a Single Cosine Similarity based
  Learning Objective, 2021, https://arxiv.org/abs/2109.14449.
"""

from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from deeprank_jax.models.multiscale import MultiScale
from deeprank_jax.models.trunks.base import Trunk
from deeprank_jax.models.whitening import FittedVariable
from deeprank_jax.registry import config_keys

Array = jax.Array


def draw_target_codes(num_classes: int, num_bits: int, *, seed: int) -> np.ndarray:
    """Returns a code of each class, in a random order.

    They are rows of a Hadamard matrix, any two of which differ in half of the bits,
    where the number of bits is a power of two that is at least the number of classes;
    else each bit is drawn by itself, so that two codes differ in about half, and a code
    that another class has is drawn again.

    Args:
      num_classes: Number of classes `C`.
      num_bits: Number of bits `K`, at least 1.
      seed: Seed of the draw.

    Returns:
      `[C, K]` float32, 1 and -1.

    Raises:
      ValueError: There are fewer bits than 1, or too few for a code of each class.
    """
    if num_bits < 1:
        raise ValueError(f"num_bits must be at least 1, got {num_bits}.")
    if num_bits < 64 and 1 << num_bits < num_classes:
        raise ValueError(
            f"num_bits={num_bits} gives {1 << num_bits:,} codes for {num_classes:,} "
            "classes; give at least "
            f"{(num_classes - 1).bit_length()}."
        )
    rng = np.random.default_rng(seed)
    if num_bits & (num_bits - 1) or num_bits < num_classes:
        return _draw_distinct(rng, num_classes, num_bits)
    hadamard = np.ones((1, 1), np.float32)
    while len(hadamard) < num_bits:
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    # Without a draw of signs, the first bit of all codes would be the same.
    return rng.permutation(hadamard)[:num_classes] * _draw_signs(rng, (num_bits,))


def _draw_distinct(
    rng: np.random.Generator, num_classes: int, num_bits: int
) -> np.ndarray:
    """Returns codes drawn bit by bit, no two the same."""
    codes = _draw_signs(rng, (num_classes, num_bits))
    while True:
        _, first = np.unique(codes, axis=0, return_index=True)
        if len(first) == num_classes:
            return codes
        again = np.setdiff1d(np.arange(num_classes), first)
        codes[again] = _draw_signs(rng, (len(again), num_bits))


def _draw_signs(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Returns numbers 1 and -1, float32, each as likely as the other."""
    return rng.choice(np.array([-1, 1], np.float32), shape)


class TargetCodes(nnx.Module):
    """Cosines of unit vectors to the codes of the classes, which do not learn."""

    def __init__(self, num_classes: int, num_bits: int, *, seed: int):
        """Creates the codes, see `draw_target_codes`.

        Args:
          num_classes: Number of classes.
          num_bits: Number of bits.
          seed: Seed of the draw.
        """
        codes = draw_target_codes(num_classes, num_bits, seed=seed)
        self.codes = FittedVariable(jnp.asarray(codes))

    def __call__(self, embeddings: Array) -> Array:
        """Maps unit vectors `[B, K]` to cosines `[B, C]`."""
        codes = self.codes[...]
        cosines = jnp.matmul(embeddings, codes.T, precision=jax.lax.Precision.HIGHEST)
        return cosines * codes.shape[1] ** -0.5


class Coded(MultiScale):
    """Maps images to cosines in training, and to the embeddings before the codes.

    Attributes:
      head: The codes of the classes.
    """

    def __init__(
        self,
        trunk: Trunk,
        *,
        num_classes: int,
        seed: int,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        """Creates the network around a trunk; `MultiScale` has the other arguments.

        Args:
          trunk: Trunk, as in `MultiScale`.
          num_classes: Number of classes.
          seed: Seed of the codes.
          rngs: Keys of the initial parameters; those of the network without the codes
            are the same as of `MultiScale`.
          **options: Arguments of `MultiScale`.

        Raises:
          ValueError: As `MultiScale`, or there are fewer codes than classes.
        """
        super().__init__(trunk, rngs=rngs, **options)
        with config_keys({"num_bits": "config.model.embedding_dim"}):
            self.head = TargetCodes(num_classes, self.embedding_dim, seed=seed)

    def __call__(self, images: Array, key: Array | None = None) -> Array:
        """Maps uint8 `[B, H, W, 3]` to cosines `[B, num_classes]`."""
        return self.head(super().__call__(images, key))

    def embed_once(self, images: Array) -> Array:
        """Maps images to unit vectors, `[B, embedding_dim]`."""
        return super().__call__(images)
