"""Groups of several positives and negatives of an anchor, without repeats."""

import collections
import dataclasses

import numpy as np

from deeprank_jax.sampling.reservoir.draws import Draws
from deeprank_jax.sampling.reservoir.table import DrawTable, InClassDraws

# Number of new draws for an image that its group holds already.
_REDRAWS = 16
# Repeats that remain, of each kind.
CAUSES = ("repeated_positive", "repeated_negative")


@dataclasses.dataclass
class _Negatives:
    """Negatives of some anchors, flat.

    Attributes:
      slots: `[n]` int64, slots of the negatives.
      relevance: `[n]` float64, relevance to their anchors.
      in_class: `[n]` bool, True for a negative of the anchor's category.
      valid: `[n]` bool, False where there is no negative, and the others have no
        meaning.
    """

    slots: np.ndarray
    relevance: np.ndarray
    in_class: np.ndarray
    valid: np.ndarray


def extend_groups(
    table: DrawTable,
    in_class: InClassDraws,
    triplets: Draws,
    num_positives: int,
    num_negatives: int,
    rng: np.random.Generator,
    counts: collections.Counter[str],
) -> Draws:
    """Adds further positives and negatives to the anchors of triplets.

    Each further positive has the law of the first, given that the group does not hold
    it; negative `j` has the law of a negative of positive `j % num_positives`, given
    the same. Where 16 new draws find no image that the group lacks, one is repeated; a
    repeated negative may be no less relevant than its positive.

    Args:
      table: Table that the triplets were drawn from.
      in_class: Draws within the categories of the table.
      triplets: Triplets of `B` anchors; the first positive and negative stay.
      num_positives: Number of positives `P` of each group, at least 1.
      num_negatives: Number of negatives `N` of each group; 0 drops those of the
        triplets.
      rng: Generator of the draws.
      counts: Counts of repeats, added to.

    Returns:
      Draws with slots `[B, 1 + P + N]` and relevance `[B, P + N]`, positives first,
      and `in_class` `[B, N]`.
    """
    num = len(triplets.slots)
    anchor = triplets.slots[:, 0]
    slots = np.zeros((num, 1 + num_positives + num_negatives), np.int64)
    relevance = np.zeros((num, num_positives + num_negatives))
    inside = np.ones((num, num_negatives), bool)
    slots[:, :2], relevance[:, 0] = triplets.slots[:, :2], triplets.relevance[:, 0]

    pending = np.ones((num, num_positives), bool)
    pending[:, 0] = False
    for attempt in range(1 + _REDRAWS):
        rows, columns = np.nonzero(pending)
        if not len(rows):
            break
        slots[rows, 1 + columns], relevance[rows, columns] = in_class.draw_positives(
            anchor[rows], rng.random(len(rows))
        )
        pending = _repeats(slots[:, : 1 + num_positives])[:, 1:]
        if attempt == _REDRAWS:
            counts["repeated_positive"] += int(pending.sum())
    if num_negatives:
        _draw_negatives(
            table, in_class, triplets, slots, relevance, inside, rng, counts
        )
    return Draws(slots, relevance, inside, triplets.valid)


def _draw_negatives(
    table: DrawTable,
    in_class: InClassDraws,
    triplets: Draws,
    slots: np.ndarray,
    relevance: np.ndarray,
    inside: np.ndarray,
    rng: np.random.Generator,
    counts: collections.Counter[str],
) -> None:
    """Fills in the negatives of groups, the last columns."""
    num_negatives = inside.shape[1]
    num_positives = relevance.shape[1] - num_negatives
    first = 1 + num_positives
    slots[:, first] = triplets.slots[:, 2]
    relevance[:, num_positives] = triplets.relevance[:, 1]
    inside[:, 0] = triplets.in_class
    pending = np.ones((len(slots), num_negatives), bool)
    pending[:, 0] = _repeats(slots[:, : first + 1])[:, first]
    for attempt in range(1 + _REDRAWS):
        rows, columns = np.nonzero(pending)
        if not len(rows):
            break
        negatives = _draw_further_negatives(
            table,
            in_class,
            slots[rows, 0],
            relevance[rows, columns % num_positives],
            rng.random((2, len(rows))),
        )
        # Without a negative of its own, a positive takes that of the first once more.
        valid = negatives.valid
        slots[rows, first + columns] = np.where(
            valid, negatives.slots, slots[rows, first]
        )
        relevance[rows, num_positives + columns] = np.where(
            valid, negatives.relevance, relevance[rows, num_positives]
        )
        inside[rows, columns] = np.where(valid, negatives.in_class, inside[rows, 0])
        pending = _repeats(slots)[:, first:]
        if attempt == _REDRAWS:
            counts["repeated_negative"] += int(pending.sum())


def _draw_further_negatives(
    table: DrawTable,
    in_class: InClassDraws,
    anchor: np.ndarray,
    of_positive: np.ndarray,
    uniform: np.ndarray,
) -> _Negatives:
    """Draws a negative of each anchor and positive, if they have one.

    Args:
      table: Table of the anchors.
      in_class: Draws within its categories.
      anchor: `[n]` slots.
      of_positive: `[n]` float64, relevance of the positive to the anchor.
      uniform: `[2, n]` uniform numbers.
    """
    slots, relevance, has_negative = in_class.draw_negatives(
        anchor, of_positive, uniform[1]
    )
    low, high = table.low[anchor], table.high[anchor]
    others = high - low < len(table.index)
    wants_other = uniform[0] < table.law.out_of_class
    outside = others & (wants_other | ~has_negative)
    slots[outside] = table.draw_outside(
        low[outside], high[outside], uniform[1, outside]
    )
    relevance[outside] = 0.0
    return _Negatives(slots, relevance, ~outside, outside | has_negative)


def _repeats(slots: np.ndarray) -> np.ndarray:
    """Returns where a slot of `[B, n]` occurs in its row before: `[B, n]` bool."""
    same = slots[:, :, None] == slots[:, None, :]
    return np.any(np.tril(same, -1), axis=2)
