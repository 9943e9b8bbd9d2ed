"""Which id and label has each row of an index, and which rows are still there?"""

from collections.abc import Sequence

import numpy as np


class Table:
    """Ids and labels of all rows, deleted ones too, in the order they were added."""

    def __init__(self, ids: list[str], labels: list[str], deleted: np.ndarray):
        """Takes what was read.

        Args:
          ids: `N` str, those of live rows unique.
          labels: `N` str.
          deleted: `[n]` row numbers.
        """
        self.ids, self.labels = ids, labels
        self.is_live = np.ones(len(ids), bool)
        self.is_live[deleted] = False
        self.places = {ids[row]: int(row) for row in np.flatnonzero(self.is_live)}

    def append(self, ids: Sequence[str], labels: Sequence[str]) -> None:
        """Adds rows of new ids."""
        self.places.update({x: len(self.ids) + i for i, x in enumerate(ids)})
        self.ids += ids
        self.labels += labels
        self.is_live = np.concatenate([self.is_live, np.ones(len(ids), bool)])

    def delete(self, ids: Sequence[str], rows: np.ndarray) -> None:
        """Marks the rows of these ids as deleted."""
        self.is_live[rows] = False
        for name in ids:
            del self.places[name]

    def rows_of(self, labels: frozenset[str] | None) -> np.ndarray:
        """Returns the live rows, `[n]` ascending; with `labels`, only theirs."""
        if labels is None:
            return np.flatnonzero(self.is_live)
        has_label = np.fromiter((x in labels for x in self.labels), bool)
        return np.flatnonzero(self.is_live & has_label)
