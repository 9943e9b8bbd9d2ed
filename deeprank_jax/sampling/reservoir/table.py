"""What buffers hold, made ready to draw from. A record is known by its slot here."""

from typing import Protocol

import numpy as np

from deeprank_jax.relevance import LabelRelevance
from deeprank_jax.sampling.reservoir.buffers import Content
from deeprank_jax.sampling.reservoir.candidates import Candidates
from deeprank_jax.sampling.reservoir.law import Law, below


class InClassDraws(Protocol):
    """What draws inside the categories of a table."""

    def draw(
        self, anchor: np.ndarray, of_positive: np.ndarray, of_negative: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Draws a positive and an in-class negative for each anchor.

        Args:
          anchor: `[n]` slots.
          of_positive: `[n]` uniform numbers in [0, 1).
          of_negative: `[n]` others.

        Returns:
          `[n, 2]` slots of positive and negative, `[n, 2]` float64 relevances to the
          anchor, `[n]` whether there is a positive, `[n]` whether there is also a
          negative. Where there is none, slots and relevances mean nothing.
        """
        ...


class DrawTable:
    """The content of buffers with all that does not change between draws.

    Attributes:
      law: of the draws.
      index: `[S]` int64, the record in each slot, sorted by category; inside one by
        labels if the relevance follows them, else by record.
      attributes: `[S, A]`, theirs.
      label: `[S]` ints, the category of each slot.
      low: `[S]` int64, where the slots of its category start.
      high: `[S]` int64, where they end.
      lift: `[S]` float64, one over the probability to be in the buffer.
      lift_sums: `[S + 1]` float64, running sum of `lift`, from 0.
      anchor_sums: `[S]` float64, running sum of the anchors' weights.
      fill: the share of the buffers' places that are taken.
      mean_position: when a record in the buffers came by, on average; 0 if empty.
    """

    def __init__(self, content: Content, candidates: Candidates, law: Law):
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
        self.anchor_sums = np.cumsum(law.anchor_weight(totals) * self.lift)
        self.fill = content.fill
        self.mean_position = float(content.position.mean()) if len(order) else 0.0

    def draw_anchors(self, uniform: np.ndarray) -> np.ndarray:
        """Draws a slot for each of `uniform` `[n]`; some must have a weight."""
        target = below(uniform, self.anchor_sums[-1])
        return np.searchsorted(self.anchor_sums, target, side="right")

    def draw_outside(
        self, low: np.ndarray, high: np.ndarray, uniform: np.ndarray
    ) -> np.ndarray:
        """Draws `[n]` slots by lift outside `[low, high)`, which are not all."""
        own = self.lift_sums[high] - self.lift_sums[low]
        rest = below(uniform, self.lift_sums[-1] - own)
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
          low: `[n]`, the sums run over the slots from here
          high: `[n]` to before here,
          hole_low: `[n]` leaving out those from here, which lies inside,
          hole_high: `[n]` to before here. Something is left.
          rest: `[n]` float64, at least 0 and below the sum of all.

        Returns:
          `[n]` slots.
        """
        sums = self.lift_sums
        before = sums[hole_low] - sums[low]
        after = ((rest >= before) & (high > hole_high)) | (hole_low == low)
        target = np.where(after, sums[hole_high] + (rest - before), sums[low] + rest)
        slot = np.searchsorted(sums[1:], target, side="right")
        # Rounding may end just beside the slots that were meant.
        first = np.where(after, hole_high, low)
        last = np.where(after, high, hole_low) - 1
        return np.clip(slot, first, last)
