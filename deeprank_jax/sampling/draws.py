"""How triplets are drawn from buffers: weighted draws by cumulative sums.

Every draw is one uniform number looked up in a cumulative sum of weights; nothing is
drawn and rejected.
"""

import collections
from collections.abc import Iterator
import dataclasses

import numpy as np

from deeprank_jax.relevance import Relevance

CAUSES = (
    "no_positive",
    "no_negative",
    "no_in_class_negative",
    "no_other_category",
    "repeated",
)
# How often an anchor without a triplet is drawn anew, before one is repeated.
_REDRAWS = 16
# Blocks of anchors times records of about this size stay in the processor's cache.
_BLOCK = 2**16
# Anchors of categories up to this size share a block, padded to the largest.
_SMALL = 64


class NoTripletError(ValueError):
    """The records, or the part of them in the buffers, hold no triplet."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Law:
    """What is drawn: equations (7) and (8) of the paper and its out-of-class share.

    Attributes:
      relevance: of two records by their attributes.
      positive_cap: `T_p`, above 0: a relevance beyond it draws no more often.
      min_relevance_gap: `T_r`, at least 0: by how much the positive is more relevant
        to the anchor than an in-class negative.
      out_of_class: the share of negatives from other categories, in [0, 1].
    """

    relevance: Relevance
    positive_cap: float
    min_relevance_gap: float
    out_of_class: float


class DrawTable:
    """The content of buffers, made ready to draw from. A record is known by its slot.

    Attributes:
      index: `[S]` int64, the record in each slot, sorted by category and record.
      attributes: `[S, A]`, theirs.
      label: `[S]` int64, the category of each slot.
      start: `[C + 1]` int64, where each category's slots start.
      lift: `[S]` float64, one over the probability to be in the buffer.
      anchor_sums: `[S]` float64, running sum of the anchors' weights.
      lift_sums: `[S + 1]` float64, running sum of `lift`, from 0.
    """

    def __init__(
        self,
        index: np.ndarray,
        inclusion: np.ndarray,
        start: np.ndarray,
        totals: np.ndarray,
        attributes: np.ndarray,
    ):
        """Creates the table of `Buffers.content()`.

        Args:
          index: `[S]` int64 records.
          inclusion: `[S]` float64 in (0, 1].
          start: `[C + 1]` int64.
          totals: `[N]` float64, the total relevance of every record.
          attributes: `[N, A]`, the attributes of every record.
        """
        self.index = index
        self.attributes = attributes[index]
        self.label = np.repeat(np.arange(len(start) - 1), np.diff(start))
        self.start = start
        self.lift = 1.0 / inclusion
        self.anchor_sums = np.cumsum(totals[index] * self.lift)
        self.lift_sums = np.concatenate([[0.0], np.cumsum(self.lift)])


@dataclasses.dataclass(frozen=True)
class Draws:
    """Triplets as they lie in a table: slots `[B, 3]`, and what is known of them.

    `relevance` is `[B, 2]` float64 of anchor and positive, anchor and negative;
    `in_class` and `valid` are `[B]` bool.
    """

    slots: np.ndarray
    relevance: np.ndarray
    in_class: np.ndarray
    valid: np.ndarray

    def put(self, where: np.ndarray, other: "Draws") -> None:
        """Overwrites the triplets at `where` with those of `other`."""
        for field in dataclasses.fields(self):
            getattr(self, field.name)[where] = getattr(other, field.name)

    def take(self, rows: np.ndarray) -> "Draws":
        """Returns a copy of some triplets."""
        return Draws(*(getattr(self, f.name)[rows] for f in dataclasses.fields(self)))


def draw_triplets(
    table: DrawTable, law: Law, num: int, rng: np.random.Generator
) -> tuple[Draws, collections.Counter[str]]:
    """Draws `num` triplets; see `TripletSampler` for the law and the corner cases.

    Raises:
      NoTripletError: the buffers hold no triplet, or none was found in `num` times
        a fixed number of draws.
    """
    counts = collections.Counter(dict.fromkeys(CAUSES, 0))
    draws = _empty(num)
    if not len(table.index) or not table.anchor_sums[-1] > 0:
        raise NoTripletError(_nothing_to_draw(table, law))
    left = np.arange(num)
    for _ in range(1 + _REDRAWS):
        draws.put(left, _draw_once(table, law, rng.random((len(left), 4)), counts))
        left = left[~draws.valid[left]]
        if not len(left):
            return draws, counts
    valid = np.flatnonzero(draws.valid)
    if not len(valid):
        raise NoTripletError(_nothing_to_draw(table, law))
    counts["repeated"] += len(left)
    draws.put(left, draws.take(valid[np.searchsorted(valid, left) % len(valid)]))
    return draws, counts


def _draw_once(
    table: DrawTable, law: Law, uniform: np.ndarray, counts: collections.Counter[str]
) -> Draws:
    """Draws one triplet for each row of `uniform` `[n, 4]`, valid where it exists."""
    anchor = np.searchsorted(
        table.anchor_sums, _below(uniform[:, 0], table.anchor_sums[-1]), side="right"
    )
    draws = _empty(len(anchor))
    draws.slots[:, 0] = anchor
    has_positive, has_negative = draws.valid.copy(), draws.valid.copy()
    for rows, columns in _blocks(table, anchor):
        block = _draw_in_class(table, law, anchor[rows], columns, uniform[rows])
        draws.slots[rows, 1:], draws.relevance[rows] = block[:2]
        has_positive[rows], has_negative[rows] = block[2:]

    low, high = table.start[table.label[anchor]], table.start[table.label[anchor] + 1]
    others = high - low < len(table.index)
    wants_other = uniform[:, 2] < law.out_of_class
    outside = has_positive & others & (wants_other | ~has_negative)
    draws.slots[outside, 2] = _draw_out_of_class(
        table, low[outside], high[outside], uniform[outside, 3]
    )
    draws.relevance[outside, 1] = 0.0
    draws.in_class[:] = ~outside
    draws.valid[:] = has_positive & (outside | has_negative)
    for cause, where in {
        "no_positive": ~has_positive,
        "no_negative": has_positive & ~draws.valid,
        "no_in_class_negative": outside & ~wants_other,
        "no_other_category": draws.valid & wants_other & ~others,
    }.items():
        counts[cause] += int(where.sum())
    return draws


def _blocks(
    table: DrawTable, anchor: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields rows of anchors with the slots of their categories.

    Yields:
      `[b]` rows and `[1, m]` slots of the one category of a block, or `[b, m]` slots
      for a block of several small categories, some of them beyond the category.
    """
    label = table.label[anchor]
    size = table.start[label + 1] - table.start[label]
    small = size <= _SMALL
    group = np.where(small, -1, label)
    order = np.argsort(group, kind="stable")
    ends = np.flatnonzero(np.diff(group[order], append=-2)) + 1
    for rows in np.split(order, ends[:-1]) if len(order) else ():
        width = np.arange(size[rows].max())
        if small[rows[0]]:
            columns = table.start[label[rows], None] + width
        else:
            columns = table.start[label[rows[:1]], None] + width
        step = max(1, _BLOCK // len(width))
        for first in range(0, len(rows), step):
            part = slice(first, first + step)
            yield rows[part], columns[part] if small[rows[0]] else columns


def _draw_in_class(
    table: DrawTable,
    law: Law,
    anchor: np.ndarray,
    columns: np.ndarray,
    uniform: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draws a positive and an in-class negative for each anchor of a block.

    Args:
      table: of the buffers.
      law: of the draws.
      anchor: `[b]` slots.
      columns: `[b or 1, m]` slots of their categories; see `_blocks`.
      uniform: `[b, 4]`, of which the second is for positives, the fourth for
        negatives.

    Returns:
      `[b, 2]` slots of positive and negative, `[b, 2]` relevances to the anchor,
      `[b]` whether there is a positive, `[b]` whether there is a negative.
    """
    rows = np.arange(len(anchor))
    usable = columns < table.start[table.label[anchor] + 1][:, None]
    columns = np.minimum(columns, len(table.index) - 1)
    usable &= columns != anchor[:, None]
    relevance = np.asarray(
        law.relevance.pairwise(
            table.attributes[anchor][:, None], table.attributes[columns]
        ),
        np.float64,
    )
    lift = np.broadcast_to(table.lift[columns], usable.shape)
    weight = np.minimum(relevance, law.positive_cap) * lift * usable
    positive, has_positive = _draw_columns(weight, uniform[:, 1])
    of_positive = relevance[rows, positive]

    # The slack lets a gap of just T_r pass, as .3 - .2 is below .1 in floats.
    most = of_positive * (1 + 1e-9) - law.min_relevance_gap
    most = np.minimum(most, np.nextafter(of_positive, -np.inf))
    allowed = usable & (relevance <= most[:, None])
    weight *= allowed
    negative, has_negative = _draw_columns(weight, uniform[:, 3])
    flat = np.flatnonzero(~has_negative)
    if len(flat):
        negative[flat], has_negative[flat] = _draw_columns(
            lift[flat] * allowed[flat], uniform[flat, 3]
        )
    chosen = np.stack([positive, negative], axis=1)
    slots = np.take_along_axis(np.broadcast_to(columns, usable.shape), chosen, axis=1)
    return (
        slots,
        np.take_along_axis(relevance, chosen, axis=1),
        has_positive,
        has_negative & has_positive,
    )


def _draw_columns(
    weight: np.ndarray, uniform: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Draws a column of each row of `weight` `[b, m]`; False where all are 0."""
    sums = np.cumsum(weight, axis=1)
    target = _below(uniform, sums[:, -1])
    return np.argmax(sums > target[:, None], axis=1), sums[:, -1] > 0


def _draw_out_of_class(
    table: DrawTable, low: np.ndarray, high: np.ndarray, uniform: np.ndarray
) -> np.ndarray:
    """Draws `[n]` slots outside `[low, high)`, which must not be all of them."""
    before = table.lift_sums[low]
    own = table.lift_sums[high] - before
    target = _below(uniform, table.lift_sums[-1] - own)
    after = (target >= before) & (high < len(table.index))
    slot = np.searchsorted(
        table.lift_sums[1:], np.where(after, target + own, target), side="right"
    )
    # Rounding may end just inside the anchor's own category or behind the last one.
    slot = np.where(after, np.maximum(slot, high), np.minimum(slot, low - 1))
    return np.minimum(slot, len(table.index) - 1)


def _below(uniform: np.ndarray, total: np.ndarray | float) -> np.ndarray:
    """Returns `uniform * total`, below `total` whatever the rounding."""
    return np.minimum(uniform * total, np.nextafter(total, 0.0))


def _empty(num: int) -> Draws:
    return Draws(
        np.zeros((num, 3), np.int64),
        np.zeros((num, 2)),
        np.zeros(num, bool),
        np.zeros(num, bool),
    )


def _nothing_to_draw(table: DrawTable, law: Law) -> str:
    return (
        f"No triplet was found among the {len(table.index):,} records in the buffers: "
        "raise capacity and warmup_records so that an anchor's positives are in its "
        "category's buffer, or, if nothing is less relevant than a positive by "
        f"min_relevance_gap ({law.min_relevance_gap:g}), lower it or choose a finer "
        "category_level."
    )
