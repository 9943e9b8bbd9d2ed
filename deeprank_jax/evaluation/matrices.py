"""Tables of numbers of two values each, for the pictures of a report."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Matrix:
    """Numbers by a row's and a column's value.

    Attributes:
      title: Title, e.g. `"Mean cosine by digit"`.
      note: Sentence on the numbers.
      names: Names of the `K` rows and columns.
      values: `[K, K]` float64, NaN where there is no number.
    """

    title: str
    note: str
    names: tuple[str, ...]
    values: np.ndarray
