"""Draws for a relevance by label hierarchy, without comparing any pair.

Around an anchor lie rings: the slots that share exactly 0, 1, ... L levels with it. In
a table sorted by labels each ring is one range with a hole, so that its weight is a
difference of sums, and a draw is two look-ups.
"""

import numpy as np

from deeprank_jax.sampling.reservoir.law import below
from deeprank_jax.sampling.reservoir.table import DrawTable


class RingDraws:
    """Draws positives and in-class negatives from a table sorted by labels."""

    def __init__(self, table: DrawTable):
        """Computes the rings around every slot.

        Args:
          table: Table of a law whose relevance is a `LabelRelevance`.
        """
        num_slots, num_levels = table.attributes.shape
        of_depth = np.array(table.law.relevance.of_depth(num_levels))  # pyrefly: ignore
        self._table, self._law = table, table.law
        self._of_depth = of_depth
        low = np.empty((num_levels + 2, num_slots), np.int64)
        high = np.empty_like(low)
        starts = np.append(True, table.label[1:] != table.label[:-1])[:num_slots]
        for depth in range(num_levels + 1):
            if depth:
                column = table.attributes[:, depth - 1]
                starts[1:] |= column[1:] != column[:-1]
            first = np.append(np.flatnonzero(starts), num_slots)
            run = np.cumsum(starts) - 1
            low[depth], high[depth] = first[run], first[run + 1]
        # In the innermost ring the hole is the slot itself.
        low[-1] = np.arange(num_slots)
        high[-1] = low[-1] + 1
        mass = -np.diff(table.lift_sums[high] - table.lift_sums[low], axis=0)
        # Empty rings have weight 0, in spite of rounding in the difference.
        empty = np.diff(high - low, axis=0) == 0
        mass[empty] = 0.0
        # A row per slot: ring d is [low[d], high[d]) without [low[d + 1], high[d + 1]).
        self._low = np.ascontiguousarray(low.T)
        self._high = np.ascontiguousarray(high.T)
        self._mass = np.ascontiguousarray(np.maximum(mass, 0.0).T)
        self._pull = self._law.positive_weight(of_depth)
        self._push = self._law.negative_weight(of_depth)
        most = self._law.most_relevant_negative(of_depth)
        self._allowed = of_depth[None, :] <= most[:, None]

    def positive_sums(self) -> np.ndarray:
        """Returns sums as described in `InClassDraws`."""
        return self._mass @ self._pull

    def draw(
        self, anchor: np.ndarray, of_positive: np.ndarray, of_negative: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Draws as described in `InClassDraws`."""
        positive, ring, has_positive = self._positives(anchor, of_positive)
        negative, other, has_negative = self._negatives(
            anchor, self._allowed[ring], of_negative, has_positive
        )
        return (
            np.stack([positive, negative], axis=1),
            self._of_depth[np.stack([ring, other], axis=1)],
            has_positive,
            has_negative,
        )

    def draw_positives(
        self, anchor: np.ndarray, uniform: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws as described in `InClassDraws`."""
        slots, ring, _ = self._positives(anchor, uniform)
        return slots, self._of_depth[ring]

    def draw_negatives(
        self, anchor: np.ndarray, of_positive: np.ndarray, uniform: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draws as described in `InClassDraws`."""
        most = self._law.most_relevant_negative(of_positive)
        allowed = self._of_depth[None, :] <= most[:, None]
        slots, ring, has_negative = self._negatives(
            anchor, allowed, uniform, np.ones(len(anchor), bool)
        )
        return slots, self._of_depth[ring], has_negative

    def _positives(
        self, anchor: np.ndarray, uniform: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns slots, rings and `[n]` bool, False where there is no positive."""
        ring, rest, has_positive = _choose(self._mass[anchor] * self._pull, uniform)
        scale = self._pull[ring]
        return self._slots(anchor, ring, rest, scale, has_positive), ring, has_positive

    def _negatives(
        self,
        anchor: np.ndarray,
        allowed: np.ndarray,
        uniform: np.ndarray,
        where: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns slots, rings and `[n]` bool, False where there is no negative.

        Args:
          anchor: `[n]` slots.
          allowed: `[n, L + 1]` bool, rings that hold negatives.
          uniform: `[n]` uniform numbers.
          where: `[n]` bool, False for anchors that are left out.
        """
        mass = self._mass[anchor] * allowed
        weight = mass * self._push
        # If no negative is relevant at all, their weights are equal.
        flat = weight.sum(axis=1) <= 0
        weight = np.where(flat[:, None], mass, weight)
        ring, rest, has_negative = _choose(weight, uniform)
        scale = np.where(flat, 1.0, self._push[ring])
        has_negative &= where
        return self._slots(anchor, ring, rest, scale, has_negative), ring, has_negative

    def _slots(
        self,
        anchor: np.ndarray,
        ring: np.ndarray,
        rest: np.ndarray,
        scale: np.ndarray,
        where: np.ndarray,
    ) -> np.ndarray:
        """Returns the slot in each ring at which weights reach `rest`."""
        slots = np.zeros(len(anchor), np.int64)
        rows = np.flatnonzero(where)
        anchor, ring = anchor[rows], ring[rows]
        slots[rows] = self._table.find(
            self._low[anchor, ring],
            self._high[anchor, ring],
            self._low[anchor, ring + 1],
            self._high[anchor, ring + 1],
            rest[rows] / scale[rows],
        )
        return slots


def _choose(
    weight: np.ndarray, uniform: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws a column of each row of `weight` `[n, m]`.

    Returns:
      `[n]` columns, `[n]` position of the draw within the column's weight, `[n]` bool,
      False where all weights are 0.
    """
    sums = np.cumsum(weight, axis=1)
    target = below(uniform, sums[:, -1])
    column = np.argmax(sums > target[:, None], axis=1)
    end = np.take_along_axis(sums, column[:, None], axis=1)[:, 0]
    width = np.take_along_axis(weight, column[:, None], axis=1)[:, 0]
    return column, np.clip(target - (end - width), 0.0, width), sums[:, -1] > 0
