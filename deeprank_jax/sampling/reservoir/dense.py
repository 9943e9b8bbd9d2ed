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

    def positive_sums(self) -> np.ndarray:
        """Returns sums as described in `InClassDraws`; compares all pairs of slots."""
        slots = np.arange(len(self._lift))
        sums = np.zeros(len(slots))
        for rows, columns, usable in self._blocks(slots):
            values, lift = self._compare(rows, columns, usable)
            weights = self._law.positive_weight(values) * lift
            sums[rows] = weights.sum(axis=1, dtype=np.float64)
        return sums

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

    def draw_positives(
        self, anchor: np.ndarray, uniform: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws as described in `InClassDraws`."""
        slots = np.zeros(len(anchor), np.int64)
        relevance = np.zeros(len(anchor))
        for rows, columns, usable in self._blocks(anchor):
            values, lift = self._compare(anchor[rows], columns, usable)
            weight = self._law.positive_weight(values) * lift
            positive, _ = _draw_columns(weight, uniform[rows])
            slots[rows], relevance[rows] = _take(columns, values, positive)
        return slots, relevance

    def draw_negatives(
        self, anchor: np.ndarray, of_positive: np.ndarray, uniform: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draws as described in `InClassDraws`."""
        slots = np.zeros(len(anchor), np.int64)
        relevance = np.zeros(len(anchor))
        has_negative = np.zeros(len(anchor), bool)
        for rows, columns, usable in self._blocks(anchor):
            values, lift = self._compare(anchor[rows], columns, usable)
            best = of_positive[rows, None].astype(values.dtype)
            negative, has_negative[rows] = self._draw_negatives(
                values, lift, best, uniform[rows]
            )
            slots[rows], relevance[rows] = _take(columns, values, negative)
        return slots, relevance, has_negative

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
        values, lift = self._compare(anchor, columns, usable)
        positive, has_positive = _draw_columns(
            self._law.positive_weight(values) * lift, of_positive
        )
        best = np.take_along_axis(values, positive[:, None], axis=1)
        negative, has_negative = self._draw_negatives(values, lift, best, of_negative)
        pairs = [_take(columns, values, column) for column in (positive, negative)]
        slots, relevance = (np.stack(x, axis=1) for x in zip(*pairs, strict=True))
        return slots, relevance, np.stack([has_positive, has_negative], axis=1)

    def _compare(
        self, anchor: np.ndarray, columns: slice | np.ndarray, usable: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns relevance and lift of each anchor's category, `[b, m]` each.

        The lift is 0 where a column cannot be used.
        """
        attributes = self._table.attributes
        # A view of a whole category, or a row for each anchor.
        others = attributes[columns].reshape(-1, *usable.shape[1:], attributes.shape[1])
        relevance = self._law.compare(attributes[anchor][:, None], others)
        return relevance, self._lift[columns] * usable

    def _draw_negatives(
        self,
        relevance: np.ndarray,
        lift: np.ndarray,
        of_positive: np.ndarray,
        uniform: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draws columns of negatives; False where there is none.

        Args:
          relevance: `[b, m]`, relevance of the columns.
          lift: `[b, m]`, lift of the columns, 0 where one cannot be used.
          of_positive: `[b, 1]`, relevance of the positives.
          uniform: `[b]` uniform numbers.
        """
        law = self._law
        lift = lift * (relevance <= law.most_relevant_negative(of_positive))
        negative, has_negative = _draw_columns(
            law.negative_weight(relevance) * lift, uniform
        )
        # If no negative is relevant at all, their weights are equal.
        flat = np.flatnonzero(~has_negative)
        if len(flat):
            negative[flat], has_negative[flat] = _draw_columns(
                lift[flat], uniform[flat]
            )
        return negative, has_negative


def _take(
    columns: slice | np.ndarray, relevance: np.ndarray, column: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the slots and relevances `[b]` of one drawn column of each row."""
    values = np.take_along_axis(relevance, column[:, None], axis=1)[:, 0]
    if isinstance(columns, slice):
        return column + columns.start, values
    return np.take_along_axis(columns, column[:, None], axis=1)[:, 0], values


def _draw_columns(
    weight: np.ndarray, uniform: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Draws a column of each row of `weight` `[b, m]`; False where all are 0."""
    sums = np.cumsum(weight, axis=1)
    target = below(uniform, sums[:, -1])
    return np.argmax(sums > target[:, None], axis=1), sums[:, -1] > 0
