"""Which records can be drawn now: one reservoir of fixed capacity per category.

Records race: record `j` finishes at `e_j = Exp(1) / rate_j`, and a category's buffer
holds the `capacity` first. What is in the buffers depends on which records were
seen, never on their order.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Categories:
    """What every pass of the records has in common.

    Attributes:
      label: `[N]` int64 in `[0, C)`, each record's category.
      rate: `[N]` float64 above 0, how fast each record races.
      sizes: `[C]` int64, how many records each category has.
    """

    label: np.ndarray
    rate: np.ndarray
    sizes: np.ndarray


class Buffers:
    """The buffers of all categories, filled during one pass of the records."""

    def __init__(self, categories: Categories, capacity: int):
        """Creates empty buffers.

        Args:
          categories: of all records.
          capacity: how many records a category's buffer holds.
        """
        self._categories = categories
        self._capacity = capacity
        # The slot beyond the capacity keeps the first key that missed the buffer.
        slots = np.minimum(categories.sizes, capacity + 1)
        self._start = np.concatenate([[0], np.cumsum(slots)])
        self._index = np.zeros(self._start[-1], np.int64)
        self._key = np.zeros(self._start[-1])
        self._count = np.zeros(len(slots), np.int64)
        self._threshold = np.full(len(slots), np.inf)

    def ingest(self, index: np.ndarray, exponential: np.ndarray) -> None:
        """Lets records race, each at most once in the life of these buffers.

        Args:
          index: `[n]` int64 records.
          exponential: `[n]` float64, the standard exponential variate of each.
        """
        label = self._categories.label[index]
        key = exponential / self._categories.rate[index]
        enters = key < self._threshold[label]
        if enters.any():
            self._merge(index[enters], key[enters], label[enters])

    def _merge(self, index: np.ndarray, key: np.ndarray, label: np.ndarray) -> None:
        """Sorts newcomers into the buffers of their categories, and those alone."""
        touched = np.flatnonzero(np.bincount(label, minlength=len(self._count)))
        held = _ranges(self._start[touched], self._count[touched])
        label = np.concatenate([np.repeat(touched, self._count[touched]), label])
        index = np.concatenate([self._index[held], index])
        key = np.concatenate([self._key[held], key])
        order = np.lexsort((index, key, label))
        seen = np.bincount(label, minlength=len(self._count))[touched]
        rank = _ranges(np.zeros_like(seen), seen)
        room = np.minimum(seen, self._capacity + 1)
        kept = order[rank < np.repeat(room, seen)]
        slots = _ranges(self._start[touched], room)
        self._index[slots], self._key[slots] = index[kept], key[kept]
        self._count[touched] = room
        full = touched[room > self._capacity]
        self._threshold[full] = self._key[self._start[full] + self._capacity]

    def content(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns what the buffers hold, sorted by category and record.

        Returns:
          `[S]` int64 records; `[S]` float64 probabilities with which each is there,
          given the other records' keys: `1 - exp(-rate * tau)`, where `tau` is the
          first key that missed the buffer, or 1 while none has; and `[C + 1]` int64,
          where each category's records start. Empty while no record was seen.
        """
        held = np.minimum(self._count, self._capacity)
        slots = _ranges(self._start[:-1], held)
        label = np.repeat(np.arange(len(held)), held)
        index = self._index[slots]
        order = np.lexsort((index, label))
        index = index[order]
        inclusion = -np.expm1(-self._categories.rate[index] * self._threshold[label])
        return index, inclusion, np.concatenate([[0], np.cumsum(held)])


def _ranges(start: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Concatenates `arange(s, s + n)` for each `s, n`."""
    ends = np.cumsum(length)
    total = ends[-1] if len(ends) else 0
    return np.arange(total) + np.repeat(start - (ends - length), length)
