"""Rows of an index: their ids and labels, which are deleted, and those found."""

from collections.abc import Sequence
import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Neighbors:
    """Rows nearest to `Q` queries, nearest first.

    With fewer than `k` rows the distance is infinite, the id None and the label "".

    Attributes:
      distances: `[Q, k]` float32, ascending.
      ids: Ids of the `k` rows per query.
      labels: Labels of the `k` rows per query.
    """

    distances: np.ndarray
    ids: list[list[str | None]]
    labels: list[list[str]]


class Table:
    """Ids and labels of all rows, deleted ones too, in the order of adding."""

    def __init__(self, ids: list[str], labels: list[str], deleted: np.ndarray):
        """Creates the table.

        Args:
          ids: Ids of the `N` rows; those of live rows are unique.
          labels: Labels of the `N` rows.
          deleted: `[n]` numbers of the deleted rows.
        """
        self.ids, self.labels = ids, labels
        self.is_live = np.ones(len(ids), bool)
        self.is_live[deleted] = False
        self.places = {ids[row]: int(row) for row in np.flatnonzero(self.is_live)}

    def append(self, ids: Sequence[str], labels: Sequence[str]) -> None:
        """Appends rows with new ids."""
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
        """Returns the live rows `[n]`, ascending; with `labels`, only rows of these."""
        if labels is None:
            return np.flatnonzero(self.is_live)
        has_label = np.fromiter((x in labels for x in self.labels), bool)
        return np.flatnonzero(self.is_live & has_label)
