"""Networks from pairs of unit embeddings to scores."""

from flax import nnx
import jax
import jax.numpy as jnp

from deeprank_jax.models.layers import l2_normalize

Array = jax.Array

# Rounded to fewer bits, near embeddings would become the same.
_HIGHEST = jax.lax.Precision.HIGHEST


class WeightedProduct(nnx.Module):
    """A weight for each dimension of the product of both embeddings."""

    def __init__(self, dim: int):
        """Creates weights of 1, with which the score is the cosine.

        Args:
          dim: Length of an embedding, `D`.
        """
        self.weights = nnx.Param(jnp.ones(dim))

    def __call__(self, a: Array, b: Array) -> Array:
        """Returns scores `[N]` of float32 `[N, D]` and `[N, D]`."""
        return jnp.matmul(a * b, self.weights[...], precision=_HIGHEST)


class Projection(nnx.Module):
    """The cosine after two fully connected layers, which both sides share."""

    def __init__(self, dim: int, width: int, *, weight_std: float, rngs: nnx.Rngs):
        """Creates the layers.

        Args:
          dim: Length of an embedding, `D`.
          width: Number of units of each layer.
          weight_std: Standard deviation of the initial weights.
          rngs: Random keys of the weights.
        """
        self.first = _linear(dim, width, weight_std, rngs)
        self.second = _linear(width, width, weight_std, rngs)

    def __call__(self, a: Array, b: Array) -> Array:
        """Returns scores `[N]` of float32 `[N, D]` and `[N, D]`."""
        a, b = (l2_normalize(self.second(nnx.relu(self.first(x)))) for x in (a, b))
        return jnp.sum(a * b, axis=-1)


class PairPerceptron(nnx.Module):
    """Two hidden layers over both embeddings side by side, and a linear output."""

    def __init__(self, dim: int, width: int, *, weight_std: float, rngs: nnx.Rngs):
        """Creates the layers.

        Args:
          dim: Length of an embedding, `D`.
          width: Number of units of each hidden layer.
          weight_std: Standard deviation of the initial weights.
          rngs: Random keys of the weights.
        """
        self.first = _linear(2 * dim, width, weight_std, rngs)
        self.second = _linear(width, width, weight_std, rngs)
        self.score = _linear(width, 1, weight_std, rngs)

    def __call__(self, a: Array, b: Array) -> Array:
        """Returns scores `[N]` of float32 `[N, D]` and `[N, D]`."""
        x = jnp.concatenate([a, b], axis=-1)
        x = nnx.relu(self.second(nnx.relu(self.first(x))))
        return self.score(x)[:, 0]


def _linear(
    num_inputs: int, num_outputs: int, weight_std: float, rngs: nnx.Rngs
) -> nnx.Linear:
    return nnx.Linear(
        num_inputs,
        num_outputs,
        kernel_init=nnx.initializers.normal(weight_std),
        precision=_HIGHEST,
        rngs=rngs,
    )
