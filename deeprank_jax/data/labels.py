"""Which label does a record have at each level?

Convention: a label stands for the whole path down to its level; labels are numbered
in the order of their paths, and are the same numbers in every split.
"""

from collections.abc import Sequence

import numpy as np


def encode_labels(
    columns: Sequence[np.ndarray],
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Numbers the paths of labels.

    Args:
      columns: for each of the `L` levels, coarse to fine, `[N]` values that sort:
        the labels within their parent.

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
    """Names every label: its own name where that is enough, else its path.

    Args:
      columns: for each level `[N]` str, the names within the parent.
      firsts: for each level the index of the first record of every label.

    Returns:
      For each level the name of every label.
    """
    names = []
    for level, first in enumerate(firsts):
        own = tuple(str(columns[level][index]) for index in first)
        names.append(
            own
            if len(set(own)) == len(own)
            else join_paths(columns[: level + 1], first)
        )
    return tuple(names)


def join_paths(columns: Sequence[np.ndarray], indices: np.ndarray) -> tuple[str, ...]:
    """Returns the path, joined by `/`, of some records.

    Args:
      columns: for each level `[N]` str, the names within the parent.
      indices: `[M]` ints, the records.
    """
    return tuple("/".join(str(c[index]) for c in columns) for index in indices)
