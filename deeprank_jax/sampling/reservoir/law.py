"""Law of the draws: equations (6) to (8) of the paper and the out-of-class share."""

import dataclasses
from typing import Any

import numpy as np

from deeprank_jax.relevance import Relevance

MODES = ("importance", "uniform")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Law:
    """Weights of records in the draws, before the correction for buffers.

    Attributes:
      relevance: Relevance of two records by their attributes.
      mode: `"importance"`, weights by relevance; or `"uniform"`, equal weights of all
        relevant records, the paper's baseline.
      positive_cap: Relevance `T_p`, above 0, beyond which the weight stays the same.
      min_relevance_gap: Least difference `T_r`, at least 0, in relevance of a positive
        and an in-class negative.
      out_of_class: Share of negatives from other categories, in [0, 1].
      min_positive_relevance: Least relevance of a positive, at least 0; the paper has
        none. An anchor without one is drawn anew.
    """

    relevance: Relevance
    mode: str
    positive_cap: float
    min_relevance_gap: float
    out_of_class: float
    min_positive_relevance: float = 0.0

    def options(self) -> dict[str, Any]:
        """Returns all but the relevance."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del values["relevance"]
        return values

    def compare(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Returns the relevance of `[..., A]` to `[..., A]`, `[...]` floats."""
        relevance = np.asarray(self.relevance.pairwise(a, b))
        if relevance.dtype.kind != "f":  # Counts are ints, but T_p may be a half.
            relevance = relevance.astype(np.float64)
        return relevance

    def anchor_weight(self, totals: np.ndarray) -> np.ndarray:
        """Returns the weight of each anchor by its total relevance, eq. (6)."""
        return totals if self.mode == "importance" else (totals > 0) * 1.0

    def positive_weight(self, relevance: np.ndarray) -> np.ndarray:
        """Returns the weight of each positive by its relevance, eq. (7)."""
        if self.mode == "uniform":
            weight = (relevance > 0).astype(relevance.dtype)
        else:
            weight = np.minimum(relevance, relevance.dtype.type(self.positive_cap))
        if self.min_positive_relevance:
            weight = weight * (relevance >= self.min_positive_relevance)
        return weight

    def negative_weight(self, relevance: np.ndarray) -> np.ndarray:
        """Returns the weight of each in-class negative that meets eq. (8)."""
        if self.mode == "uniform":
            return np.ones_like(relevance)
        return np.minimum(relevance, relevance.dtype.type(self.positive_cap))

    def most_relevant_negative(self, of_positive: np.ndarray) -> np.ndarray:
        """Returns the greatest allowed relevance of a negative, eq. (8).

        Also without a gap it is below that of the positive.

        Args:
          of_positive: `[...]` floats, relevance of the positive.
        """
        # The slack lets a gap of just T_r pass, as .3 - .2 is below .1 in floats.
        slack = 4 * np.finfo(of_positive.dtype).eps
        most = of_positive * (1 + max(slack, 1e-9)) - self.min_relevance_gap
        below = np.nextafter(of_positive, of_positive.dtype.type(-np.inf))
        return np.minimum(most.astype(of_positive.dtype), below)


def below(uniform: np.ndarray, total: Any) -> np.ndarray:
    """Returns `uniform * total`, below `total` in spite of rounding."""
    return np.minimum(uniform * total, np.nextafter(total, 0.0))
