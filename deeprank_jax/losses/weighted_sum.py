"""Weighted sum of losses of the same outputs."""

from collections.abc import Mapping
import functools
import math
import operator
from typing import Any

import jax

from deeprank_jax.losses.base import Loss

Array = jax.Array


class WeightedSum:
    """Sum of losses by name, each with a weight.

    For example, `dict(name="weighted_sum", terms=dict(multi_similarity={},
    rank_n_contrast=dict(weight=0.4, temperature=0.1)))`.
    """

    outputs = "embeddings"

    def __init__(self, *, terms: Mapping[str, tuple[float, Loss]]):
        """Creates the sum.

        Args:
          terms: Losses by name: in the config their options and `weight`, 1 by default.

        Raises:
          ValueError: There is no loss, a weight is not positive, or a loss takes
            logits or cosines.
        """
        if not terms:
            raise ValueError(
                "terms must name at least one loss, e.g. dict(multi_similarity={})."
            )
        for name, (weight, loss) in terms.items():
            if not 0 < weight < math.inf:
                raise ValueError(
                    f"terms.{name}.weight must be above 0 and finite, got {weight}."
                )
            if loss.outputs != self.outputs:
                raise ValueError(
                    f"terms.{name} takes {loss.outputs}; a sum is of losses that take "
                    f"{self.outputs}."
                )
        self._terms = dict(terms)

    def __call__(
        self,
        outputs: Array,
        batch: Mapping[str, Any],
        *,
        step: Array | int,
        key: Array,
    ) -> Array:
        """Returns the losses `[B]`, one per group."""
        losses = [
            weight * loss(outputs, batch, step=step, key=key)
            for weight, loss in self._terms.values()
        ]
        return functools.reduce(operator.add, losses)

    def describe(self) -> str:
        """Returns the terms with their weights."""
        return " + ".join(
            f"{weight:g} * ({loss.describe()})" for weight, loss in self._terms.values()
        )
