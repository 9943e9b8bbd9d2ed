"""Which records can be drawn now: one reservoir of fixed capacity per category.

Records race: record `j` finishes at `e_j = Exp(1) / rate_j`, and a category's buffer
holds the `capacity` first. What is in the buffers depends on which records were
seen, never on their order.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Runners:
    """Records that race, `[n]` each.

    Attributes:
      index: int64, which records.
      label: ints in `[0, C)`, the category of each.
      key: float64, when each finishes.
      rate: float64 above 0, how fast it is.
      position: int64, when it came by.
    """

    index: np.ndarray
    label: np.ndarray
    key: np.ndarray
    rate: np.ndarray
    position: np.ndarray

    def take(self, rows: np.ndarray) -> "Runners":
        """Returns some of them."""
        return Runners(
            **{f.name: getattr(self, f.name)[rows] for f in dataclasses.fields(self)}
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Content:
    """What buffers hold, sorted by category and record; all empty while nothing is.

    Attributes:
      index: `[S]` int64 records.
      label: `[S]` int64, the category of each.
      inclusion: `[S]` float64, the probability with which each is there, given the
        other records' keys: `1 - exp(-rate * tau)`, where `tau` is the first key that
        missed the buffer, or 1 while none has.
      position: `[S]` int64, when each came by.
      fill: the share of the buffers' places that are taken, in [0, 1].
    """

    index: np.ndarray
    label: np.ndarray
    inclusion: np.ndarray
    position: np.ndarray
    fill: float


class Buffers:
    """The buffers of all categories, filled during one pass of the records."""

    def __init__(self, sizes: np.ndarray, capacity: int):
        """Creates empty buffers.

        Args:
          sizes: `[C]` ints, how many records each category has at most.
          capacity: how many records a category's buffer holds.
        """
        self._capacity = capacity
        # The slot beyond the capacity keeps the first key that missed the buffer.
        slots = np.minimum(sizes, capacity + 1)
        self._start = np.concatenate([[0], np.cumsum(slots)])
        num = int(self._start[-1])
        self._held = Runners(
            index=np.zeros(num, np.int64),
            label=np.repeat(np.arange(len(slots)), slots),
            key=np.zeros(num),
            rate=np.ones(num),
            position=np.zeros(num, np.int64),
        )
        self._count = np.zeros(len(slots), np.int64)
        self._threshold = np.full(len(slots), np.inf)
        self._places = int(np.minimum(sizes, capacity).sum())

    def ingest(self, runners: Runners) -> None:
        """Lets records race, each at most once in the life of these buffers."""
        enters = np.flatnonzero(runners.key < self._threshold[runners.label])
        if len(enters) == len(runners.key):
            self._merge(runners)
        elif len(enters):
            self._merge(runners.take(enters))

    def _merge(self, new: Runners) -> None:
        """Sorts newcomers into the buffers of their categories, and those alone."""
        touched = np.flatnonzero(np.bincount(new.label, minlength=len(self._count)))
        slots = _ranges(self._start[touched], self._count[touched])
        both = Runners(
            **{
                field.name: np.concatenate(
                    [getattr(self._held, field.name)[slots], getattr(new, field.name)]
                )
                for field in dataclasses.fields(Runners)
            }
        )
        order = _sort_within(both.label, both.key, len(self._count))
        seen = np.bincount(both.label, minlength=len(self._count))[touched]
        rank = _ranges(np.zeros_like(seen), seen)
        room = np.minimum(seen, self._capacity + 1)
        kept = both.take(order[rank < np.repeat(room, seen)])
        slots = _ranges(self._start[touched], room)
        for field in dataclasses.fields(Runners):
            getattr(self._held, field.name)[slots] = getattr(kept, field.name)
        self._count[touched] = room
        full = touched[room > self._capacity]
        self._threshold[full] = self._held.key[self._start[full] + self._capacity]

    def content(self) -> Content:
        """Returns what the buffers hold."""
        taken = np.minimum(self._count, self._capacity)
        held = self._held.take(_ranges(self._start[:-1], taken))
        held = held.take(_sort_within(held.label, held.index, len(self._count)))
        return Content(
            index=held.index,
            label=held.label,
            inclusion=-np.expm1(-held.rate * self._threshold[held.label]),
            position=held.position,
            fill=len(held.index) / max(1, self._places),
        )


def _sort_within(label: np.ndarray, key: np.ndarray, num_labels: int) -> np.ndarray:
    """Returns the order by label and, inside one, by key.

    As `lexsort`, several times as fast: keys tie by a chance of 2^-52 only, so that
    the first sort need not be stable, and short labels are sorted by counting.
    """
    order = np.argsort(key)
    short = np.int16 if num_labels < 2**15 else label.dtype
    return order[np.argsort(label[order].astype(short), kind="stable")]


def _ranges(start: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Concatenates `arange(s, s + n)` for each `s, n`."""
    ends = np.cumsum(length)
    total = ends[-1] if len(ends) else 0
    return np.arange(total) + np.repeat(start - (ends - length), length)
