"""Records of other categories are not relevant, whatever else a relevance says."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from deeprank_jax.relevance.base import check_attributes

# The largest whole number up to which float32 knows all.
_LARGEST = 2**24


class WithinCategory:
    """Another relevance inside a category, 0 across; the paper's rule.

    Its attributes are the category, and behind it those of the other relevance.
    """

    def __init__(self, relevance: Any, level: int):
        """Creates the relevance.

        Args:
          relevance: inside a category.
          level: of the labels that is the category, a negative number counting from
            the finest.
        """
        self.relevance = relevance
        self.level = level

    def attributes(self, splits: Sequence[Any]) -> list[np.ndarray]:
        """Returns `[N, 1 + A]` for each split, of a type that holds both.

        Raises:
          ValueError: there are too many categories to be told apart as float32, or
            the other relevance raises it.
        """
        found = []
        inner = self.relevance.attributes(splits)
        check_attributes(inner, splits)
        for records, attributes in zip(splits, inner, strict=True):
            category = records.labels[:, self.level]
            if category.max(initial=0) > _LARGEST:
                raise ValueError(
                    f"{records.name}: there are more than {_LARGEST:,} categories at "
                    f"level {self.level}; choose a coarser "
                    "config.triplets.category_level."
                )
            is_float = attributes.dtype.kind == "f"
            dtype = np.promote_types(
                attributes.dtype, np.float32 if is_float else np.int32
            )
            columns = [category[:, None].astype(dtype), attributes]
            found.append(np.concatenate(columns, axis=1))
        return found

    def pairwise(self, a: Any, b: Any) -> Any:
        """Returns the relevance of `[..., 1 + A]` to `[..., 1 + A]`, as `[...]`."""
        same = a[..., 0] == b[..., 0]
        relevance = self.relevance.pairwise(a[..., 1:], b[..., 1:])
        return a.__array_namespace__().where(same, relevance, 0.0)

    @property
    def total(self) -> Callable[[np.ndarray], np.ndarray]:
        """Maps `[N, 1 + A]` to `[N]` float64, each record's relevance to all others.

        Raises:
          AttributeError: the other relevance has no closed form, so neither has this.
        """
        inner = self.relevance.total

        def total(attributes: np.ndarray) -> np.ndarray:
            totals = np.zeros(len(attributes))
            _, label = np.unique(attributes[:, 0], return_inverse=True)
            order = np.argsort(label, kind="stable")
            for members in np.split(order, np.cumsum(np.bincount(label))[:-1]):
                totals[members] = inner(attributes[members, 1:])
            return totals

        return total
