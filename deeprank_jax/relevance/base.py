"""What sampler, step and metrics ask of a relevance."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np


class Relevance(Protocol):
    """How similar two records should be, from what is stored with each.

    A kind may also have `total(attributes [N, A]) -> [N]` float64, each record's
    relevance to all others, summed, if it knows a faster way than `pairwise`.
    """

    def attributes(self, splits: Sequence[Any]) -> list[np.ndarray]:
        """Returns what the relevance compares, `[N, A]` for each split.

        Args:
          splits: `Records`, all splits that the dataset has.

        Raises:
          ValueError: something is not known of a record.
        """
        ...

    def pairwise(self, a: Any, b: Any) -> Any:
        """Returns the relevance of attributes `[..., A]` to `[..., A]` as `[...]`.

        Leading axes broadcast: `pairwise(a[:, None], b[None])` is the whole block.
        """
        ...


class LabelRelevance:
    """A relevance that follows from how many levels of the labels two records share.

    The sampler draws from these without comparing every pair.
    """

    def attributes(self, splits: Sequence[Any]) -> list[np.ndarray]:
        """Returns the labels, `[N, L]` int32 for each split."""
        return [records.labels for records in splits]

    def of_depth(self, num_levels: int) -> tuple[float, ...]:
        """Returns the relevance of records that share 0, 1, ... `num_levels` levels.

        Not decreasing.

        Raises:
          ValueError: it is not made for so many levels.
        """
        raise NotImplementedError


def check_attributes(found: Sequence[Any], splits: Sequence[Any]) -> None:
    """Checks that there is a row of numbers for each record.

    Args:
      found: `[N, A]` for each split, from `Relevance.attributes`.
      splits: `Records` of each split.

    Raises:
      ValueError: it is not so.
    """
    if not isinstance(found, Sequence) or len(found) != len(splits):
        given = len(found) if isinstance(found, Sequence) else type(found).__name__
        raise ValueError(
            f"The relevance's attributes(splits) returned {given}; it must return a "
            f"list of {len(splits)} arrays, one for each split."
        )
    for attributes, records in zip(found, splits, strict=True):
        if not isinstance(attributes, np.ndarray):
            shown = type(attributes).__name__
        elif attributes.dtype.kind not in "iufb":
            shown = f"values of type {attributes.dtype}"
        elif attributes.ndim != 2 or len(attributes) != len(records):
            shown = f"shape {attributes.shape}"
        else:
            continue
        raise ValueError(
            f"{records.name}: the relevance's attributes(splits) returned {shown}; it "
            f"must be a NumPy array of numbers, of shape ({len(records)}, A)."
        )
