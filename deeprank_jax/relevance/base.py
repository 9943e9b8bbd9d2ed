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
