"""Encoding of hierarchical labels as integers.

Convention: a label stands for the whole path down to its level; labels are numbered in
the order of their paths, with the same numbers in every split.
"""

from collections.abc import Sequence

import numpy as np


def encode_labels(
    columns: Sequence[np.ndarray],
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Numbers the paths of labels.

    Args:
      columns: Sortable values `[N]`, the labels within their parent, for each of the
        `L` levels from coarse to fine.

    Returns:
      The labels `[N, L]` int32, and for each level the index of the first record
      of every label.
    """
    num_records = len(columns[0])
    labels = np.empty((num_records, len(columns)), np.int32)
    parents, firsts = np.zeros(num_records, np.int64), []
    for level, column in enumerate(columns):
        values, codes = np.unique(column, return_inverse=True)
        _, first, parents = np.unique(
            parents * max(len(values), 1) + codes,
            return_index=True,
            return_inverse=True,
        )
        labels[:, level] = parents
        firsts.append(first)
    return labels, tuple(firsts)


def name_labels(
    columns: Sequence[np.ndarray], firsts: Sequence[np.ndarray]
) -> tuple[tuple[str, ...], ...]:
    """Names every label: its last name if that is unique, else its path.

    Args:
      columns: Names `[N]` str within the parent, for each level.
      firsts: Index of the first record of every label, for each level.

    Returns:
      For each level the name of every label.
    """
    names = []
    for level, first in enumerate(firsts):
        last_names = tuple(str(columns[level][index]) for index in first)
        names.append(
            last_names
            if len(set(last_names)) == len(last_names)
            else join_paths(columns[: level + 1], first)
        )
    return tuple(names)


def join_paths(columns: Sequence[np.ndarray], indices: np.ndarray) -> tuple[str, ...]:
    """Returns the paths of some records, joined by `/`.

    Args:
      columns: Names `[N]` str within the parent, for each level.
      indices: `[M]` ints, indices of the records.
    """
    return tuple("/".join(str(c[index]) for c in columns) for index in indices)
