"""Reservoirs of records: one buffer of fixed capacity per category.

Records race: record `j` finishes at `e_j = Exp(1) / rate_j`, and a category's buffer
holds the `capacity` records that finish first. The content of the buffers depends on
the set of ingested records, never on their order.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeyedRecords:
    """Records with their keys of the race.

    Attributes:
      index: `[n]` int64, indices of records.
      label: `[n]` ints, category of each record, in `[0, C)`.
      key: `[n]` float64, time at which each finishes the race.
      rate: `[n]` float64, speed of each, above 0.
      position: `[n]` int64, position in the epoch's order.
    """

    index: np.ndarray
    label: np.ndarray
    key: np.ndarray
    rate: np.ndarray
    position: np.ndarray

    def take(self, rows: np.ndarray) -> "KeyedRecords":
        """Returns the records of some rows."""
        return KeyedRecords(
            **{f.name: getattr(self, f.name)[rows] for f in dataclasses.fields(self)}
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class BufferContent:
    """Content of all buffers, sorted by category and record.

    Attributes:
      index: `[S]` int64, indices of records.
      label: `[S]` int64, category of each record.
      inclusion: `[S]` float64, probability of each to be in its buffer, given the
        other records' keys: `1 - exp(-rate * tau)`, where `tau` is the first key that
        missed the buffer, or 1 while none has.
      position: `[S]` int64, position of each in the epoch's order.
      fill: Share of the buffers' places that are occupied, in [0, 1].
    """

    index: np.ndarray
    label: np.ndarray
    inclusion: np.ndarray
    position: np.ndarray
    fill: float


class Buffers:
    """Buffers of all categories, filled during one epoch."""

    def __init__(self, sizes: np.ndarray, capacity: int):
        """Creates empty buffers.

        Args:
          sizes: `[C]` ints, greatest number of records of each category.
          capacity: Number of records in the buffer of a category.
        """
        self._capacity = capacity
        # One more slot than the capacity: for the first key that missed the buffer.
        slots = np.minimum(sizes, capacity + 1)
        self._start = np.concatenate([[0], np.cumsum(slots)])
        num = int(self._start[-1])
        self._records = KeyedRecords(
            index=np.zeros(num, np.int64),
            label=np.repeat(np.arange(len(slots)), slots),
            key=np.zeros(num),
            rate=np.ones(num),
            position=np.zeros(num, np.int64),
        )
        self._count = np.zeros(len(slots), np.int64)
        self._threshold = np.full(len(slots), np.inf)
        self._places = int(np.minimum(sizes, capacity).sum())

    def ingest(self, records: KeyedRecords) -> None:
        """Lets records race, each at most once per life of these buffers."""
        enters = np.flatnonzero(records.key < self._threshold[records.label])
        if len(enters) == len(records.key):
            self._merge(records)
        elif len(enters):
            self._merge(records.take(enters))

    def _merge(self, new: KeyedRecords) -> None:
        """Sorts new records into the buffers of their categories."""
        touched = np.flatnonzero(np.bincount(new.label, minlength=len(self._count)))
        slots = _ranges(self._start[touched], self._count[touched])
        both = KeyedRecords(
            **{
                field.name: np.concatenate(
                    [
                        getattr(self._records, field.name)[slots],
                        getattr(new, field.name),
                    ]
                )
                for field in dataclasses.fields(KeyedRecords)
            }
        )
        order = _sort_within(both.label, both.key, len(self._count))
        num = np.bincount(both.label, minlength=len(self._count))[touched]
        rank = _ranges(np.zeros_like(num), num)
        room = np.minimum(num, self._capacity + 1)
        winners = both.take(order[rank < np.repeat(room, num)])
        slots = _ranges(self._start[touched], room)
        for field in dataclasses.fields(KeyedRecords):
            getattr(self._records, field.name)[slots] = getattr(winners, field.name)
        self._count[touched] = room
        full = touched[room > self._capacity]
        self._threshold[full] = self._records.key[self._start[full] + self._capacity]

    def content(self) -> BufferContent:
        """Returns the content of the buffers."""
        num = np.minimum(self._count, self._capacity)
        records = self._records.take(_ranges(self._start[:-1], num))
        order = _sort_within(records.label, records.index, len(self._count))
        records = records.take(order)
        return BufferContent(
            index=records.index,
            label=records.label,
            inclusion=-np.expm1(-records.rate * self._threshold[records.label]),
            position=records.position,
            fill=len(records.index) / max(1, self._places),
        )


def _sort_within(label: np.ndarray, key: np.ndarray, num_labels: int) -> np.ndarray:
    """Returns the order by label and, within a label, by key.

    Like `lexsort`, but several times as fast: keys tie with a chance of 2^-52 only, so
    that the first sort need not be stable, and short labels are sorted by counting.
    """
    order = np.argsort(key)
    short = np.int16 if num_labels < 2**15 else label.dtype
    return order[np.argsort(label[order].astype(short), kind="stable")]


def _ranges(start: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Concatenates `arange(s, s + n)` for each `s, n`."""
    ends = np.cumsum(length)
    total = ends[-1] if len(ends) else 0
    return np.arange(total) + np.repeat(start - (ends - length), length)
