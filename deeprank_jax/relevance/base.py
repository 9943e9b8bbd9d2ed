"""Interface of a relevance, and the base of those that follow from labels."""

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np

from deeprank_jax.data.records import Records
from deeprank_jax.errors import DataError

# An array of NumPy or JAX: one relevance serves the sampler, the step and the metrics.
Array: TypeAlias = Any


class Relevance(Protocol):
    """Desired similarity of two records, computed from attributes stored with each.

    A kind may also have `total(attributes [N, A]) -> [N]` float64, the sum of each
    record's relevance to all others, if it has a faster way than `pairwise`.
    """

    def attributes(self, splits: Sequence[Records]) -> list[np.ndarray]:
        """Returns the attributes that the relevance compares, `[N, A]` per split.

        Args:
          splits: All splits of the dataset.

        Raises:
          DataError: The attributes of a record are not known.
        """
        ...

    def pairwise(self, a: Array, b: Array) -> Array:
        """Returns the relevance of attributes `[..., A]` to `[..., A]` as `[...]`.

        Leading axes broadcast: `pairwise(a[:, None], b[None])` is the whole block.
        """
        ...


class LabelRelevance:
    """A relevance that follows from the number of label levels two records share.

    The sampler draws from these without comparing every pair.
    """

    def attributes(self, splits: Sequence[Records]) -> list[np.ndarray]:
        """Returns the labels, `[N, L]` int32 for each split."""
        return [records.labels for records in splits]

    def of_depth(self, num_levels: int) -> tuple[float, ...]:
        """Returns the relevance of records that share 0, 1, ... `num_levels` levels.

        The values do not decrease.

        Raises:
          ConfigError: The relevance is for another number of levels.
        """
        raise NotImplementedError


def check_attributes(
    attributes: Sequence[np.ndarray], splits: Sequence[Records]
) -> None:
    """Checks that each record has a row of numbers.

    Args:
      attributes: Result of `Relevance.attributes`, `[N, A]` for each split.
      splits: Records of each split.

    Raises:
      DataError: A split has no such array.
    """
    if not isinstance(attributes, Sequence) or len(attributes) != len(splits):
        is_list = isinstance(attributes, Sequence)
        result = len(attributes) if is_list else type(attributes).__name__
        raise DataError(
            f"The relevance's attributes(splits) returned {result}; it must return a "
            f"list of {len(splits)} arrays, one for each split."
        )
    for values, records in zip(attributes, splits, strict=True):
        if not isinstance(values, np.ndarray):
            fault = type(values).__name__
        elif values.dtype.kind not in "iufb":
            fault = f"values of type {values.dtype}"
        elif values.ndim != 2 or len(values) != len(records):
            fault = f"shape {values.shape}"
        else:
            continue
        raise DataError(
            f"{records.name}: the relevance's attributes(splits) returned {fault}; it "
            f"must be a NumPy array of numbers, of shape ({len(records)}, A)."
        )
