"""How similar two records should be: one object from sampler to metric.

A relevance is a function of the records' attributes, at least 0, and larger for
records that should lie nearer. It is written against the array namespace of its
inputs, so that one function serves the NumPy sampler, the compiled step and the
metrics.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from deeprank_jax.relevance.hierarchy import Hierarchy
from deeprank_jax.relevance.same_class import SameClass


class Relevance(Protocol):
    """What sampler, step and metrics ask of a relevance."""

    def pairwise(self, a: Any, b: Any) -> Any:
        """Returns the relevance of attributes `[..., A]` to `[..., A]` as `[...]`.

        Leading axes broadcast: `pairwise(a[:, None], b[None])` is the whole block.
        """
        ...

    def total(self, attributes: np.ndarray) -> np.ndarray:
        """Returns `[N]` float64: each record's relevance to all others, summed.

        Equation (6) of the paper, over the records that share its category.
        """
        ...


KINDS: Mapping[str, Callable[..., Relevance]] = {
    "same_class": SameClass,
    "hierarchy": Hierarchy,
}


def create_relevance(name: str, **options: Any) -> Relevance:
    """Creates a relevance by its registered name.

    Raises:
      ValueError: the name is not registered.
    """
    if name not in KINDS:
        raise ValueError(f"No relevance is named {name!r}; there are {sorted(KINDS)}.")
    return KINDS[name](**options)
