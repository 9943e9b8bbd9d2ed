"""How triplets are drawn from buffers: weighted draws by cumulative sums.

Every draw is one uniform number looked up in a cumulative sum of weights; nothing is
drawn and rejected.
"""

import collections
import dataclasses

import numpy as np

from deeprank_jax.relevance import LabelRelevance
from deeprank_jax.sampling.reservoir.dense import DenseDraws
from deeprank_jax.sampling.reservoir.rings import RingDraws
from deeprank_jax.sampling.reservoir.table import DrawTable, InClassDraws

CAUSES = (
    "no_positive",
    "no_negative",
    "no_in_class_negative",
    "no_other_category",
    "repeated",
)
# How often an anchor without a triplet is drawn anew, before one is repeated.
_REDRAWS = 16


class NoTripletError(ValueError):
    """The records, or the part of them in the buffers, hold no triplet."""


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


class TripletDraws:
    """Draws triplets from a table; see `TripletSampler` for law and corner cases."""

    def __init__(self, table: DrawTable):
        """Prepares the draws, as the table's relevance allows."""
        self._table, self._law = table, table.law
        by_labels = isinstance(table.law.relevance, LabelRelevance)
        create = RingDraws if by_labels else DenseDraws
        self._in_class: InClassDraws = create(table)

    def draw(
        self, num: int, rng: np.random.Generator
    ) -> tuple[Draws, collections.Counter[str]]:
        """Draws `num` triplets, and counts what could not be drawn.

        Raises:
          NoTripletError: the buffers hold no triplet, or none was found in `num`
            times a fixed number of draws.
        """
        counts = collections.Counter(dict.fromkeys(CAUSES, 0))
        draws = _empty(num)
        sums = self._table.anchor_sums
        if not len(sums) or not sums[-1] > 0:
            raise NoTripletError(self._nothing_to_draw())
        left = np.arange(num)
        for _ in range(1 + _REDRAWS):
            draws.put(left, self._draw_once(rng.random((4, len(left))), counts))
            left = left[~draws.valid[left]]
            if not len(left):
                return draws, counts
        valid = np.flatnonzero(draws.valid)
        if not len(valid):
            raise NoTripletError(self._nothing_to_draw())
        counts["repeated"] += len(left)
        draws.put(left, draws.take(valid[np.searchsorted(valid, left) % len(valid)]))
        return draws, counts

    def _draw_once(
        self, uniform: np.ndarray, counts: collections.Counter[str]
    ) -> Draws:
        """Draws a triplet for each column of `uniform` `[4, n]`, where there is one."""
        table = self._table
        anchor = table.draw_anchors(uniform[0])
        slots, relevance, has_positive, has_negative = self._in_class.draw(
            anchor, uniform[1], uniform[3]
        )
        low, high = table.low[anchor], table.high[anchor]
        others = high - low < len(table.index)
        wants_other = uniform[2] < self._law.out_of_class
        outside = has_positive & others & (wants_other | ~has_negative)
        slots[outside, 1] = table.draw_outside(
            low[outside], high[outside], uniform[3, outside]
        )
        relevance[outside, 1] = 0.0
        draws = Draws(
            slots=np.concatenate([anchor[:, None], slots], axis=1),
            relevance=relevance,
            in_class=~outside,
            valid=has_positive & (outside | has_negative),
        )
        for cause, where in {
            "no_positive": ~has_positive,
            "no_negative": has_positive & ~draws.valid,
            "no_in_class_negative": outside & ~wants_other,
            "no_other_category": draws.valid & wants_other & ~others,
        }.items():
            counts[cause] += int(where.sum())
        return draws

    def _nothing_to_draw(self) -> str:
        return (
            f"No triplet was found among the {len(self._table.index):,} records in the "
            "buffers: raise capacity so that an anchor's positives are in its "
            "category's buffer, or, if nothing is less relevant than a "
            f"positive by min_relevance_gap ({self._law.min_relevance_gap:g}), lower "
            "it or choose a finer category_level."
        )


def _empty(num: int) -> Draws:
    return Draws(
        np.zeros((num, 3), np.int64),
        np.zeros((num, 2)),
        np.zeros(num, bool),
        np.zeros(num, bool),
    )
