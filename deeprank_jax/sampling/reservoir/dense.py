"""Draws for any relevance: compares an anchor with its category's whole buffer."""

from collections.abc import Iterator

import numpy as np

from deeprank_jax.sampling.reservoir.law import below
from deeprank_jax.sampling.reservoir.table import DrawTable

# Blocks of anchors times records of about this size stay in the processor's cache.
_BLOCK = 2**16
# Anchors of categories up to this size share a block, padded to the largest.
_SMALL = 64


class DenseDraws:
    """Draws positives and in-class negatives from any table."""

    def __init__(self, table: DrawTable):
        """Prepares the draws."""
        self._table, self._law = table, table.law
        self._lift = table.lift.astype(np.float32)

    def draw(
        self, anchor: np.ndarray, of_positive: np.ndarray, of_negative: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Draws as described in `InClassDraws`."""
        slots = np.zeros((len(anchor), 2), np.int64)
        relevance = np.zeros((len(anchor), 2))
        has = np.zeros((len(anchor), 2), bool)
        for rows, columns, usable in self._blocks(anchor):
            slots[rows], relevance[rows], has[rows] = self._draw_block(
                anchor[rows], columns, usable, of_positive[rows], of_negative[rows]
            )
        return slots, relevance, has[:, 0], has[:, 0] & has[:, 1]

    def _blocks(
        self, anchor: np.ndarray
    ) -> Iterator[tuple[np.ndarray, slice | np.ndarray, np.ndarray]]:
        """Yields rows of anchors with the slots of their categories.

        Yields:
          `[b]` rows; the slots of their categories: a slice if the block has a single
          category, or else `[b, m]`; `[b, m]` bool, False for the anchor itself and
          beyond its category.
        """
        low, high = self._table.low[anchor], self._table.high[anchor]
        group = np.where(high - low <= _SMALL, -1, low)
        order = np.argsort(group, kind="stable")
        ends = np.flatnonzero(np.diff(group[order], append=-2)) + 1
        for rows in np.split(order, ends[:-1]) if len(order) else ():
            width = np.arange(int((high - low)[rows].max()))
            values = len(width)
            if group[rows[0]] < 0:  # Attributes are gathered, too.
                values *= max(1, self._table.attributes.shape[1] // _SMALL)
            step = max(1, _BLOCK // values)
            for first in range(0, len(rows), step):
                part = rows[first : first + step]
                anchors = (np.arange(len(part)), anchor[part] - low[part])
                if group[part[0]] < 0:
                    columns = low[part, None] + width
                    usable = columns < high[part, None]
                    columns = np.minimum(columns, len(self._lift) - 1)
                else:
                    columns = slice(low[part[0]], high[part[0]])
                    usable = np.ones((len(part), len(width)), bool)
                usable[anchors] = False
                yield part, columns, usable

    def _draw_block(
        self,
        anchor: np.ndarray,
        columns: slice | np.ndarray,
        usable: np.ndarray,
        of_positive: np.ndarray,
        of_negative: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draws for the anchors of a block."""
        attributes, law = self._table.attributes, self._law
        # A view of a whole category, or a row for each anchor.
        others = attributes[columns].reshape(-1, *usable.shape[1:], attributes.shape[1])
        relevance = np.asarray(
            law.relevance.pairwise(attributes[anchor][:, None], others)
        )
        if relevance.dtype.kind != "f":  # Counts are ints, but T_p may be a half.
            relevance = relevance.astype(np.float64)
        lift = self._lift[columns] * usable
        positive, has_positive = _draw_columns(
            law.positive_weight(relevance) * lift, of_positive
        )
        best = np.take_along_axis(relevance, positive[:, None], axis=1)
        lift *= relevance <= law.most_relevant_negative(best)
        negative, has_negative = _draw_columns(
            law.negative_weight(relevance) * lift, of_negative
        )
        # If no negative is relevant at all, their weights are equal.
        flat = np.flatnonzero(~has_negative)
        if len(flat):
            negative[flat], has_negative[flat] = _draw_columns(
                lift[flat], of_negative[flat]
            )
        pairs = np.stack([positive, negative], axis=1)
        values = np.take_along_axis(relevance, pairs, axis=1)
        if isinstance(columns, slice):
            slots = pairs + columns.start
        else:
            slots = np.take_along_axis(columns, pairs, axis=1)
        return slots, values, np.stack([has_positive, has_negative], axis=1)


def _draw_columns(
    weight: np.ndarray, uniform: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Draws a column of each row of `weight` `[b, m]`; False where all are 0."""
    sums = np.cumsum(weight, axis=1)
    target = below(uniform, sums[:, -1])
    return np.argmax(sums > target[:, None], axis=1), sums[:, -1] > 0
