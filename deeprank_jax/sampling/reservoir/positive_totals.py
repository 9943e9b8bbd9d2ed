"""Sums of the weights of equation (7), which normalize the positives of each anchor."""

import dataclasses
import os
from typing import Any

import numpy as np

from deeprank_jax.relevance import Hierarchy, LabelRelevance
from deeprank_jax.relevance.totals import is_estimated, total_relevance
from deeprank_jax.sampling.reservoir.candidates import Candidates, Rows
from deeprank_jax.sampling.reservoir.law import Law


@dataclasses.dataclass(frozen=True)
class _PositiveWeight:
    """The weight of a positive, as a relevance of two records."""

    law: Law

    def pairwise(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Returns the weights of `[..., A]` for `[..., A]`, as `[...]`."""
        return self.law.positive_weight(self.law.compare(a, b))


def positive_totals(
    candidates: Candidates, law: Law, cache: str | os.PathLike[str] | None = None
) -> Rows | None:
    """Returns `[N]` floats, the summed weights of all positives of each record.

    Where `T_p` caps no relevance these are the total relevances.

    Args:
      candidates: Records that are drawn from.
      law: Law of the draws.
      cache: Folder that keeps expensive sums; None keeps none.

    Returns:
      The sums; None if they could only be estimated, from so few pairs that records
      with few positives would never be drawn.

    Raises:
      DataError: A sum is negative or not finite.
    """
    # The options of negatives do not matter, nor to the file that keeps the sums.
    law = dataclasses.replace(law, min_relevance_gap=0.0, out_of_class=0.0)
    kind: Any = _PositiveWeight(law)
    is_relevance = not (law.mode == "uniform" or law.min_positive_relevance)
    if isinstance(law.relevance, LabelRelevance):
        num_levels = np.asarray(candidates.attributes[:1]).shape[-1]
        of_depth = np.array(law.relevance.of_depth(num_levels), np.float64)
        weights = law.positive_weight(of_depth)
        if np.array_equal(weights, of_depth):
            return candidates.totals
        kind = Hierarchy(weights[1:].tolist())
    elif is_relevance and np.isinf(law.positive_cap):
        return candidates.totals
    elif is_estimated(kind, int(candidates.sizes.max())):
        return candidates.totals if is_relevance else None
    category = np.asarray(candidates.category[:])
    attributes = np.asarray(candidates.attributes[:])
    return total_relevance(kind, attributes, category, cache=cache)
