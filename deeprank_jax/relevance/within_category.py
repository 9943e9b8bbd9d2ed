"""Relevance that is 0 across categories, the paper's rule."""

from collections.abc import Callable, Sequence

import numpy as np

from deeprank_jax.data.records import Records
from deeprank_jax.errors import DataError
from deeprank_jax.relevance.base import Array, Relevance, check_attributes

# float32 represents every whole number up to this one.
_LARGEST = 2**24


class WithinCategory:
    """Another relevance inside a category, 0 across categories.

    Its attributes are the category, followed by those of the other relevance.
    """

    def __init__(self, relevance: Relevance, level: int):
        """Creates the relevance.

        Args:
          relevance: Relevance inside a category.
          level: Level of the labels that is the category; a negative number counts
            from the finest.
        """
        self.relevance = relevance
        self.level = level

    def attributes(self, splits: Sequence[Records]) -> list[np.ndarray]:
        """Returns `[N, 1 + A]` for each split, of a type that holds both.

        Raises:
          DataError: There are more categories than float32 can represent, or the
            other relevance raises it.
        """
        joined = []
        inner = self.relevance.attributes(splits)
        check_attributes(inner, splits)
        for records, attributes in zip(splits, inner, strict=True):
            category = records.labels[:, self.level]
            if category.max(initial=0) > _LARGEST:
                raise DataError(
                    f"{records.name}: there are more than {_LARGEST:,} categories at "
                    f"level {self.level}; choose a coarser "
                    "config.triplets.category_level."
                )
            is_float = attributes.dtype.kind == "f"
            dtype = np.promote_types(
                attributes.dtype, np.float32 if is_float else np.int32
            )
            columns = [category[:, None].astype(dtype), attributes]
            joined.append(np.concatenate(columns, axis=1))
        return joined

    def pairwise(self, a: Array, b: Array) -> Array:
        """Returns the relevance of `[..., 1 + A]` to `[..., 1 + A]`, as `[...]`."""
        same = a[..., 0] == b[..., 0]
        relevance = self.relevance.pairwise(a[..., 1:], b[..., 1:])
        return a.__array_namespace__().where(same, relevance, 0.0)

    @property
    def total(self) -> Callable[[np.ndarray], np.ndarray]:
        """Function from `[N, 1 + A]` to `[N]` float64, the sum over all others.

        Raises:
          AttributeError: The other relevance has no closed form.
        """
        inner = self.relevance.total  # pyrefly: ignore[missing-attribute]

        def total(attributes: np.ndarray) -> np.ndarray:
            totals = np.zeros(len(attributes))
            _, label = np.unique(attributes[:, 0], return_inverse=True)
            order = np.argsort(label, kind="stable")
            for members in np.split(order, np.cumsum(np.bincount(label))[:-1]):
                totals[members] = inner(attributes[members, 1:])
            return totals

        return total
