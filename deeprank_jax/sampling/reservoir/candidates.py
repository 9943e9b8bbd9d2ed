"""Inputs of the reservoir sampler: category, attributes and total relevance per record.

Convention: rows are read by index and are never copied as a whole, so that they may
lie in memory, in a memory-mapped file, or be computed when they are read.
"""

import dataclasses
import os
from typing import Any, Protocol

import numpy as np

from deeprank_jax.data.records import Records
from deeprank_jax.relevance import Relevance
from deeprank_jax.relevance.totals import total_relevance

# Rows per block when all records are counted.
_BLOCK = 2**18
_GOLDEN_RATIO = 0.6180339887498949


class Rows(Protocol):
    """`[N, ...]` rows by index: an array, a memory-mapped one, or similar."""

    def __len__(self) -> int:
        """Returns `N`."""
        ...

    def __getitem__(self, index: Any, /) -> Any:
        """Returns the rows of an index `[n]` or of a slice."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidates:
    """The records of a split, as the sampler needs them.

    Attributes:
      attributes: `[N, A]`, values that the relevance compares.
      category: `[N]` ints, category of each record, in `[0, C)`.
      totals: `[N]` floats, total relevance of each record to all others of its
        category, eq. (6).
      sizes: `[C]` int64, number of records of each category.
      lowest: `[C]` float64, each category's lowest total above 0; 1 if all are 0.
      num_without_positive: Number of totals that are 0.
      sum_of_totals: Sum over all records, weighted by place, to six digits. It
        detects another relevance; further digits would differ between machines.
    """

    attributes: Rows
    category: Rows
    totals: Rows
    sizes: np.ndarray
    lowest: np.ndarray
    num_without_positive: int
    sum_of_totals: str

    def __len__(self) -> int:
        """Returns the number of records."""
        return len(self.category)


def create_candidates(
    records: Records,
    relevance: Relevance,
    category_level: int | None,
    *,
    cache: str | os.PathLike[str] | None = None,
) -> Candidates:
    """Sums the relevances of a split's records, and counts its categories.

    Args:
      records: Records with the attributes that the relevance compares.
      relevance: Relevance of two records by their attributes.
      category_level: Label level of the categories; see `categories`.
      cache: Folder that keeps expensive sums; None keeps none.

    Raises:
      ValueError: A total relevance is negative or not finite, or there is no such
        level.
    """
    category = categories(records.labels, category_level)
    totals = total_relevance(
        relevance,
        records.attributes,
        category,
        describe=records.describe,
        cache=cache,
    )
    return count_candidates(records.attributes, category, totals)


def count_candidates(attributes: Rows, category: Rows, totals: Rows) -> Candidates:
    """Counts the categories, block by block.

    Args:
      attributes: `[N, A]`, values that the relevance compares.
      category: `[N]` ints, category of each record, at least 0; memory grows with
        the largest.
      totals: `[N]` floats, total relevance of each record in its category.

    Raises:
      ValueError: The lengths differ, there is no record, or a total is negative or not
        finite.
    """
    size = len(category)
    if not size or len(attributes) != size or len(totals) != size:
        raise ValueError(
            "attributes, category and totals must have one row per record, at least "
            f"one, got {len(attributes)}, {size} and {len(totals)}."
        )
    sizes, lowest = np.zeros(0, np.int64), np.zeros(0)
    num_without_positive, sum_of_totals = 0, 0.0
    for start in range(0, size, _BLOCK):
        block = slice(start, min(start + _BLOCK, size))
        label, total = np.asarray(category[block]), np.asarray(totals[block])
        wrong = np.flatnonzero(~(np.isfinite(total) & (total >= 0)))
        if len(wrong):
            raise ValueError(
                "totals must be finite and at least 0, got "
                f"{total[wrong[0]]} for record {start + wrong[0]}."
            )
        grown = max(len(sizes), int(label.max()) + 1) - len(sizes)
        sizes = np.append(sizes, np.zeros(grown, np.int64))
        lowest = np.append(lowest, np.full(grown, np.inf))
        sizes += np.bincount(label, minlength=len(sizes))
        np.minimum.at(lowest, label[total > 0], total[total > 0])
        num_without_positive += int(np.sum(total == 0))
        # Weighted by place, so that the same totals in another order differ.
        place = np.arange(block.start, block.stop) * _GOLDEN_RATIO % 1.0
        sum_of_totals += float(np.sum(total * (1.0 + place), dtype=np.float64))
    lowest[np.isinf(lowest)] = 1.0
    return Candidates(
        attributes=attributes,
        category=category,
        totals=totals,
        sizes=sizes,
        lowest=lowest,
        num_without_positive=num_without_positive,
        sum_of_totals=f"{sum_of_totals:.6g}",
    )


def categories(labels: np.ndarray, level: int | None) -> np.ndarray:
    """Returns the category of each record, `[N]` int32 in `[0, C)`.

    Args:
      labels: `[N, L]` ints, labels from coarse to fine.
      level: Label level of the categories, a negative number counting from the
        finest; None puts all records into one category.

    Raises:
      ValueError: There is no such level, or no label.
    """
    if labels.ndim != 2 or not labels.size:
        raise ValueError(
            "labels must be [N, L] with at least one record and one level, got shape "
            f"{labels.shape}."
        )
    num = labels.shape[1]
    if level is None:
        return np.zeros(len(labels), np.int32)
    if not -num <= level < num:
        raise ValueError(
            f"category_level must be None or one of the {num} levels "
            f"({-num} to {num - 1}), got {level}."
        )
    return np.unique(labels[:, level], return_inverse=True)[1].astype(np.int32)
