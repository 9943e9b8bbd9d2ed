"""Encoding of hierarchical labels as integers.

Convention: a label stands for the whole path down to its level; labels are numbered in
the order of their paths, with the same numbers in every split.
"""

from collections.abc import Iterable, Sequence
import unicodedata

from absl import logging
import numpy as np


def normalize_name(name: str) -> str:
    """Returns a label without blanks around it, and its accents in one spelling.

    Args:
      name: Label as it is stored.
    """
    return unicodedata.normalize("NFC", name).strip()


def warn_of_case(source: str, names: Iterable[str]) -> None:
    """Warns of labels that differ in upper and lower case only.

    Args:
      source: Name of the source, for the message.
      names: Labels of one level, each once.
    """
    by_key: dict[str, list[str]] = {}
    for name in names:
        by_key.setdefault(name.casefold(), []).append(name)
    alike = [group for group in by_key.values() if len(group) > 1]
    if alike:
        logging.warning(
            "%s: %s labels differ in upper and lower case only, e.g. %s; they count as "
            "different classes. Rename them if they are one.",
            source,
            f"{sum(map(len, alike)):,}",
            " and ".join(map(repr, alike[0][:2])),
        )


def name_leaves(paths: Sequence[Sequence[str]]) -> list[str]:
    """Returns the last name of each path of labels, the whole path if it is ambiguous.

    Args:
      paths: Labels from coarse to fine of each image; none for an image without.
    """
    parents: dict[str, set[tuple[str, ...]]] = {}
    for path in paths:
        if path:
            parents.setdefault(path[-1], set()).add(tuple(path))
    return [
        "" if not path else path[-1] if len(parents[path[-1]]) == 1 else "/".join(path)
        for path in paths
    ]


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
