"""Table of the buffers' content for the draws, which name records by their slots."""

from typing import Protocol

import numpy as np

from deeprank_jax.relevance import LabelRelevance
from deeprank_jax.sampling.reservoir.buffers import BufferContent
from deeprank_jax.sampling.reservoir.candidates import Candidates, Rows
from deeprank_jax.sampling.reservoir.law import Law, below


class InClassDraws(Protocol):
    """Interface of the draws within the categories of a table."""

    def positive_sums(self) -> np.ndarray:
        """Returns `[S]` float64, the summed weights of the positives of each slot."""
        ...

    def draw(
        self, anchor: np.ndarray, of_positive: np.ndarray, of_negative: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Draws a positive and an in-class negative for each anchor.

        Args:
          anchor: `[n]` slots.
          of_positive: `[n]` uniform numbers in [0, 1).
          of_negative: `[n]` uniform numbers, independent of the former.

        Returns:
          `[n, 2]` slots of positive and negative, `[n, 2]` float64 relevances to the
          anchor, `[n]` bool, True with a positive, `[n]` bool, True with a negative,
          too. Elsewhere slots and relevances have no meaning.
        """
        ...

    def draw_positives(
        self, anchor: np.ndarray, uniform: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws a positive for each anchor, all of which have one.

        Args:
          anchor: `[n]` slots.
          uniform: `[n]` uniform numbers in [0, 1).

        Returns:
          `[n]` slots and `[n]` float64 relevances to the anchors.
        """
        ...

    def draw_negatives(
        self, anchor: np.ndarray, of_positive: np.ndarray, uniform: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draws an in-class negative for each anchor.

        Args:
          anchor: `[n]` slots.
          of_positive: `[n]` float64, relevance of the positive to the anchor.
          uniform: `[n]` uniform numbers in [0, 1).

        Returns:
          `[n]` slots and `[n]` float64 relevances to the anchors, and `[n]` bool, False
          where there is no negative, and the former have no meaning.
        """
        ...


class DrawTable:
    """Content of the buffers with all values that stay the same between draws.

    Attributes:
      law: Law of the draws.
      index: `[S]` int64, record of each slot, sorted by category; within a category
        by labels if the relevance follows them, else by record.
      attributes: `[S, A]`, attributes of the records.
      label: `[S]` ints, category of each slot.
      low: `[S]` int64, first slot of the category of each slot.
      high: `[S]` int64, one beyond the last slot of that category.
      lift: `[S]` float64, one over the probability to be in the buffer.
      lift_sums: `[S + 1]` float64, running sum of `lift`, from 0.
      anchor_weights: `[S]` float64, weights of the anchors.
      anchor_sums: `[S]` float64, running sum of these.
      fill: Share of the buffers' places that are occupied.
      mean_position: Mean position of the records in the epoch's order; 0 if empty.
    """

    def __init__(self, content: BufferContent, candidates: Candidates, law: Law):
        """Creates the table."""
        attributes = np.asarray(candidates.attributes[content.index])
        order = np.arange(len(content.index))
        if isinstance(law.relevance, LabelRelevance):
            # Records that share a level lie side by side.
            order = np.lexsort((*attributes.T[::-1], content.label))
        self.law = law
        self.index = content.index[order]
        self.attributes = np.ascontiguousarray(attributes[order])
        self.label = content.label[order]
        ends = np.cumsum(np.bincount(self.label))
        self.high = ends[self.label]
        self.low = np.append(0, ends[:-1])[self.label]
        self.lift = 1.0 / content.inclusion[order]
        self.lift_sums = np.concatenate([[0.0], np.cumsum(self.lift)])
        totals = np.asarray(candidates.totals[self.index], np.float64)
        self.anchor_weights = law.anchor_weight(totals) * self.lift
        self.anchor_sums = np.cumsum(self.anchor_weights)
        self.fill = content.fill
        self.mean_position = float(content.position.mean()) if len(order) else 0.0

    def weigh_pairs(self, in_class: InClassDraws, positive_totals: Rows) -> None:
        """Weighs each anchor by the share of its positives that are in the buffers.

        Args:
          in_class: Draws from this table.
          positive_totals: `[N]` floats, summed weights of all positives of each record.
        """
        totals = np.asarray(positive_totals[self.index], np.float64)
        share = np.zeros(len(totals))
        np.divide(in_class.positive_sums(), totals, out=share, where=totals > 0)
        self.anchor_weights = self.anchor_weights * share
        self.anchor_sums = np.cumsum(self.anchor_weights)

    def num_effective_anchors(self) -> float:
        """Returns the number of equally weighted anchors with as much variance.

        References:
          Kish, Survey Sampling, 1965.
        """
        squares = float(np.sum(np.square(self.anchor_weights)))
        return float(self.anchor_weights.sum()) ** 2 / squares if squares else 0.0

    def draw_anchors(self, uniform: np.ndarray) -> np.ndarray:
        """Draws a slot for each of `uniform` `[n]`; some weight must be above 0."""
        target = below(uniform, self.anchor_sums[-1])
        return np.searchsorted(self.anchor_sums, target, side="right")

    def draw_outside(
        self, low: np.ndarray, high: np.ndarray, uniform: np.ndarray
    ) -> np.ndarray:
        """Draws `[n]` slots by lift outside `[low, high)`, where some must be."""
        inside = self.lift_sums[high] - self.lift_sums[low]
        rest = below(uniform, self.lift_sums[-1] - inside)
        return self.find(np.zeros_like(low), np.full_like(low, len(self.index)), low,
                         high, rest)  # fmt: skip

    def find(
        self,
        low: np.ndarray,
        high: np.ndarray,
        hole_low: np.ndarray,
        hole_high: np.ndarray,
        rest: np.ndarray,
    ) -> np.ndarray:
        """Finds the slots at which running sums of lift reach `rest`.

        Args:
          low: `[n]`, first slot of a range.
          high: `[n]`, end of the range.
          hole_low: `[n]`, first slot of a hole in the range.
          hole_high: `[n]`, end of the hole; some slot lies outside it.
          rest: `[n]` float64, sums to reach, below that of the range without the hole.

        Returns:
          `[n]` slots.
        """
        sums = self.lift_sums
        before = sums[hole_low] - sums[low]
        after = ((rest >= before) & (high > hole_high)) | (hole_low == low)
        target = np.where(after, sums[hole_high] + (rest - before), sums[low] + rest)
        slot = np.searchsorted(sums[1:], target, side="right")
        # Rounding may give a slot just beside the range.
        first = np.where(after, hole_high, low)
        last = np.where(after, high, hole_low) - 1
        return np.clip(slot, first, last)
