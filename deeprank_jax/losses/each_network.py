"""Loss of an ensemble: each of its networks learns as if it were alone."""

from collections.abc import Mapping, Sequence
import functools
import itertools
import operator
from typing import Any

import jax
import jax.numpy as jnp

from deeprank_jax.losses.base import Loss

Array = jax.Array


class EachNetwork:
    """Sum of the losses of the networks of an ensemble.

    Trained on their joined embeddings instead, a network would learn less where another
    is right already; trained apart, their errors differ more.

    Attributes:
      outputs: Kind of output that the loss of a network takes.
      margin: Margin of the loss times the number of networks; None without one.

    References:
      Opitz et al., Deep Metric Learning with BIER, 2018,
      https://arxiv.org/abs/1801.04815, on why the parts of an embedding should differ.
    """

    def __init__(self, loss: Loss, *, other_dims: Sequence[int]):
        """Creates the loss.

        Args:
          loss: Loss of the embeddings of one network.
          other_dims: Lengths of the embeddings of all networks but the first, which has
            the rest of the joined embedding.
        """
        self.outputs = loss.outputs
        self._loss = loss
        self._other_dims = tuple(other_dims)
        self._num_networks = 1 + len(self._other_dims)
        margin = getattr(loss, "margin", None)
        self.margin = None if margin is None else margin * self._num_networks

    def __call__(
        self,
        outputs: Array,
        batch: Mapping[str, Any],
        *,
        step: Array | int,
        key: Array,
    ) -> Array:
        """Returns the losses `[B]`, one per group."""
        parts = self.split(outputs)
        batches = [batch] * len(parts)
        if memory := batch.get("memory"):
            batches = [
                {**batch, "memory": {**memory, "embeddings": embeddings}}
                for embeddings in self.split(memory["embeddings"])
            ]
        losses = [
            self._loss(part, of_network, step=step, key=key)
            for part, of_network in zip(parts, batches, strict=True)
        ]
        return functools.reduce(operator.add, losses)

    def describe(self) -> str:
        """Returns the loss, with the number of networks."""
        return f"{self._loss.describe()}, of each of {self._num_networks} networks"

    def split(self, embeddings: Array) -> list[Array]:
        """Returns the unit vectors of each network from joined ones `[..., D]`."""
        first = embeddings.shape[-1] - sum(self._other_dims)
        *ends, last = itertools.accumulate((first, *self._other_dims))
        del last
        # All parts of a joined embedding have the same length.
        scale = self._num_networks**0.5
        return [scale * part for part in jnp.split(embeddings, ends, axis=-1)]
