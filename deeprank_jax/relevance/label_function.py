"""Relevance by a plain function of two records' labels."""

from collections.abc import Callable, Sequence
import dataclasses

import numpy as np

from deeprank_jax.data.records import Records
from deeprank_jax.relevance.base import Array


@dataclasses.dataclass(frozen=True)
class LabelFunction:
    """The value of `fn(a, b)` for labels `[..., L]` of two records.

    Attributes:
      fn: Function of two arrays `[..., L]` that returns `[...]`, at least 0.
    """

    fn: Callable[[Array, Array], Array]

    def attributes(self, splits: Sequence[Records]) -> list[np.ndarray]:
        """Returns the labels, `[N, L]` int32 for each split."""
        return [records.labels for records in splits]

    def pairwise(self, a: Array, b: Array) -> Array:
        """Returns `fn` of `[..., L]` and `[..., L]`, as `[...]`."""
        return self.fn(a, b)
