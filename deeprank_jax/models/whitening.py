"""Whitening of embeddings, a linear map fitted after training."""

from flax import nnx
import jax
import jax.numpy as jnp

from deeprank_jax.models import layers

Array = jax.Array

# Its matrix has 64 MiB.
_MAX_DIM = 4096


class FittedVariable(nnx.Variable):
    """Variable that training leaves as it is."""


class Whitening(nnx.Module):
    """Maps unit embeddings to unit embeddings that spread more evenly over all axes.

    It changes nothing until its matrix is set to that of `training.whitening`.
    """

    def __init__(self, dim: int):
        """Creates the identity.

        Args:
          dim: Length of an embedding, `D`.
        """
        self.matrix = FittedVariable(jnp.eye(dim))

    def __call__(self, embeddings: Array) -> Array:
        """Maps float32 `[B, D]` to unit vectors, float32 `[B, D]`."""
        # Rounded to fewer bits, near embeddings would become the same.
        highest = jax.lax.Precision.HIGHEST
        return layers.l2_normalize(
            jnp.matmul(embeddings, self.matrix[...], precision=highest)
        )


def create_whitening(power: float, dim: int) -> Whitening | None:
    """Returns the whitening of a network's embeddings, not fitted yet.

    Args:
      power: Power of the whitening, in [0, 1]; 0 for none.
      dim: Length of an embedding.

    Raises:
      ValueError: The power is out of range, or the embeddings are too long.
    """
    if not 0 <= power <= 1:
        raise ValueError(f"whitening_power must be in [0, 1], got {power}.")
    if power and dim > _MAX_DIM:
        raise ValueError(
            f"whitening_power={power} needs embeddings of at most {_MAX_DIM:,} "
            f"dimensions, and they have {dim:,}; set config.model.embedding_dim."
        )
    return Whitening(dim) if power else None
