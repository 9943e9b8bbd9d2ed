"""Weighted draws of triplets from buffers, by cumulative sums.

Every draw looks up one uniform number in a cumulative sum of weights; there is no
rejection.
"""

import collections
import dataclasses

import numpy as np

from deeprank_jax.errors import DataError
from deeprank_jax.relevance import LabelRelevance
from deeprank_jax.sampling.reservoir.candidates import Rows
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
# Number of new draws for an anchor without a triplet, before one is repeated.
_REDRAWS = 16


class NoTripletError(DataError):
    """The records, or the part of them in the buffers, hold no triplet."""


@dataclasses.dataclass(frozen=True)
class Draws:
    """Groups as slots of a table, by default triplets, for which `P` and `N` are 1.

    Attributes:
      slots: `[B, 1 + P + N]` int64, slots of anchor, positives and negatives.
      relevance: `[B, P + N]` float64, relevance of positives and negatives to the
        anchor.
      in_class: `[B]` for triplets, else `[B, N]`, bool, True for a negative of the
        anchor's category.
      valid: `[B]` bool, False where no triplet was found.
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
    """Draws triplets from a table; see `TripletSampler` for law and corner cases.

    Attributes:
      in_class: Draws within the categories of the table.
    """

    def __init__(self, table: DrawTable, positive_totals: Rows | None = None):
        """Prepares the draws in the fastest way for the table's relevance.

        Args:
          table: Table to draw from.
          positive_totals: `[N]` floats, summed weights of all positives of each record;
            None if the table holds whole categories.
        """
        self._table, self._law = table, table.law
        by_labels = isinstance(table.law.relevance, LabelRelevance)
        create = RingDraws if by_labels else DenseDraws
        self.in_class: InClassDraws = create(table)
        if positive_totals is not None:
            table.weigh_pairs(self.in_class, positive_totals)

    def draw(
        self, num: int, rng: np.random.Generator
    ) -> tuple[Draws, collections.Counter[str]]:
        """Draws `num` triplets, and counts the draws that had to be replaced.

        Raises:
          NoTripletError: The buffers hold no triplet, or none was found in `num`
            times a fixed number of draws.
        """
        counts = collections.Counter(dict.fromkeys(CAUSES, 0))
        draws = _empty(num)
        sums = self._table.anchor_sums
        if not len(sums) or not sums[-1] > 0:
            raise NoTripletError(self._no_triplet_message())
        pending = np.arange(num)
        for _ in range(1 + _REDRAWS):
            uniform = rng.random((4, len(pending)))
            draws.put(pending, self._draw_once(uniform, counts))
            pending = pending[~draws.valid[pending]]
            if not len(pending):
                return draws, counts
        valid = np.flatnonzero(draws.valid)
        if not len(valid):
            raise NoTripletError(self._no_triplet_message())
        counts["repeated"] += len(pending)
        following = valid[np.searchsorted(valid, pending) % len(valid)]
        draws.put(pending, draws.take(following))
        return draws, counts

    def _draw_once(
        self, uniform: np.ndarray, counts: collections.Counter[str]
    ) -> Draws:
        """Draws a triplet for each column of `uniform` `[4, n]`, if there is one."""
        table = self._table
        anchor = table.draw_anchors(uniform[0])
        slots, relevance, has_positive, has_negative = self.in_class.draw(
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

    def _no_triplet_message(self) -> str:
        return (
            f"No triplet was found among the {len(self._table.index):,} records in the "
            "buffers: raise capacity so that an anchor's positives are in its "
            "category's buffer, or, if no record is less relevant than a "
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
