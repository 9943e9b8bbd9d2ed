"""Loss of nested prefixes of an embedding, each of which is an embedding itself."""

from collections.abc import Mapping, Sequence
import functools
import itertools
import operator
from typing import Any

import jax
import jax.numpy as jnp

from deeprank_jax.losses.base import Loss
from deeprank_jax.losses.weighted_sum import WeightedSum

Array = jax.Array

# Least squared length of a prefix; one that is shorter is not scaled to length 1.
_EPSILON = 1e-12


class Matryoshka:
    r"""Sum of a loss over the first numbers of an embedding and over all of them.

    .. math::
      \sum_{m \in dims \cup \{D\}} L(x_{1:m} / \|x_{1:m}\|)

    The embedding can be shortened afterwards: `deeprank export --embed_prefix`. For
    example, `dict(name="matryoshka", dims=(16, 64), terms=dict(multi_similarity={}))`.

    References:
      Kusupati et al., Matryoshka Representation Learning, 2022,
      https://arxiv.org/abs/2205.13147, with all weights 1.
    """

    outputs = "embeddings"

    def __init__(
        self,
        *,
        terms: Mapping[str, tuple[float, Loss]],
        dims: Sequence[int] = (16, 32, 64),
    ):
        """Creates the loss.

        Args:
          terms: Losses by name, whose weighted sum is that of each prefix; see
            `WeightedSum`.
          dims: Lengths of the prefixes, ascending; those of `D` numbers or more are
            the whole embedding, which always counts once.

        Raises:
          ValueError: The terms do not fit, or the lengths do not ascend from 1 or more.
        """
        if not dims or dims[0] < 1 or any(b <= a for a, b in itertools.pairwise(dims)):
            raise ValueError(
                f"dims must be lengths of at least 1 that ascend, got {tuple(dims)}."
            )
        if any(dim != int(dim) for dim in dims):
            raise ValueError(f"dims must be whole numbers, got {tuple(dims)}.")
        self._dims = tuple(int(dim) for dim in dims)
        self._loss = WeightedSum(terms=terms)

    def __call__(
        self,
        outputs: Array,
        batch: Mapping[str, Any],
        *,
        step: Array | int,
        key: Array,
    ) -> Array:
        """Returns the losses `[B]`, one per group."""
        losses = [self._loss(outputs, batch, step=step, key=key)]
        for dim in self._dims:
            if dim >= outputs.shape[-1]:
                break
            of_prefix = dict(batch)
            if memory := batch.get("memory"):
                embeddings = _prefixes(memory["embeddings"], dim)
                of_prefix["memory"] = {**memory, "embeddings": embeddings}
            prefixes = _prefixes(outputs, dim)
            losses.append(self._loss(prefixes, of_prefix, step=step, key=key))
        return functools.reduce(operator.add, losses)

    def describe(self) -> str:
        """Returns the loss of a prefix, with the lengths."""
        lengths = ", ".join(map(str, self._dims))
        return f"{self._loss.describe()}, of the first {lengths} numbers and of all"


def _prefixes(embeddings: Array, dim: int) -> Array:
    """Returns the first `dim` numbers of `[..., D]`, scaled to length 1."""
    prefixes = embeddings[..., :dim]
    squares = jnp.sum(jnp.square(prefixes), axis=-1, keepdims=True)
    return prefixes * jax.lax.rsqrt(jnp.maximum(squares, _EPSILON))
