"""A relevance that is one function of two records' labels, as a user would write it."""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class OfLabels:
    """What `fn` says of the labels; inside a category, if the run has any."""

    fn: Callable[[Any, Any], Any]

    def attributes(self, splits: Sequence[Any]) -> list[np.ndarray]:
        """Returns the labels, `[N, L]` int32 for each split."""
        return [records.labels for records in splits]

    def pairwise(self, a: Any, b: Any) -> Any:
        """Returns `fn` of `[..., L]` and `[..., L]`, as `[...]`."""
        return self.fn(a, b)
