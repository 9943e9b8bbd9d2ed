"""Records of other categories are not relevant, whatever else a relevance says."""

from collections.abc import Sequence
from typing import Any

import numpy as np

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
        """Returns `[N, 1 + A]` for each split, of the other relevance's type.

        Raises:
          ValueError: there are too many categories to be told apart as float32, or
            the other relevance raises it.
        """
        found = []
        inner = self.relevance.attributes(splits)
        for records, attributes in zip(splits, inner, strict=True):
            category = records.labels[:, self.level]
            if category.max(initial=0) > _LARGEST:
                raise ValueError(
                    f"{records.name}: there are more than {_LARGEST:,} categories at "
                    f"level {self.level}; choose a coarser "
                    "config.sampler.category_level."
                )
            column = category[:, None].astype(attributes.dtype)
            found.append(np.concatenate([column, attributes], axis=1))
        return found

    def pairwise(self, a: Any, b: Any) -> Any:
        """Returns the relevance of `[..., 1 + A]` to `[..., 1 + A]`, as `[...]`."""
        same = a[..., 0] == b[..., 0]
        relevance = self.relevance.pairwise(a[..., 1:], b[..., 1:])
        xp = a.__array_namespace__()
        return xp.where(same, relevance, xp.zeros_like(relevance))
