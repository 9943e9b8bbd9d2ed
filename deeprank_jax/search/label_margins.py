"""Label margins: images whose nearest neighbours have another label than their own."""

import dataclasses

import numpy as np

# Pairs per matrix product.
_BLOCK_PAIRS = 2**23


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelMargins:
    """For each embedding, its nearest neighbours of its own label and of another.

    Attributes:
      margins: `[N]` float32, half of the squared distance to the nearest row of the
        own label less that to the nearest row of another label: for embeddings of
        length 1, the cosine of the other less that of the own. Positive where another
        label is nearer; NaN where a row is the only one of its label.
      same: `[N]` int, index of the nearest other row of the same label; -1 for none.
      other: `[N]` int, index of the nearest row of another label.
    """

    margins: np.ndarray
    same: np.ndarray
    other: np.ndarray


def label_margins(embeddings: np.ndarray, labels: np.ndarray) -> LabelMargins:
    """Returns how much nearer another label is to each row than its own.

    Of rows that are equally near but for rounding, any may be the nearest.

    Args:
      embeddings: `[N, D]` finite floats.
      labels: `[N]` ints, label of each row.

    Raises:
      ValueError: There are fewer than two labels.
    """
    rows = np.asarray(embeddings, np.float32)
    labels = np.asarray(labels)
    if len(np.unique(labels)) < 2:
        raise ValueError("label margins need rows of two labels or more.")
    # Distances do not change with the origin; rounding is least about the mean.
    rows = rows - rows.mean(axis=0)
    norms = np.einsum("nd,nd->n", rows, rows)
    same, other = (np.empty(len(rows), np.int64) for _ in range(2))
    margins = np.empty(len(rows), np.float32)
    size = max(1, _BLOCK_PAIRS // len(rows))
    for start in range(0, len(rows), size):
        block = np.arange(start, min(start + size, len(rows)))
        squares = norms[block, None] + norms - 2.0 * rows[block] @ rows.T
        is_same = labels[block, None] == labels
        other[block] = np.where(is_same, np.inf, squares).argmin(axis=1)
        is_same[np.arange(len(block)), block] = False
        to_same = np.where(is_same, squares, np.inf)
        same[block] = np.where(is_same.any(axis=1), to_same.argmin(axis=1), -1)
        margins[block] = _squares(rows, block, same[block]) / 2
        margins[block] -= _squares(rows, block, other[block]) / 2
    margins[same < 0] = np.nan
    return LabelMargins(margins=margins, same=same, other=other)


def _squares(rows: np.ndarray, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """Returns the squared distance of each pair of rows."""
    return np.sum(np.square(rows[i] - rows[j]), axis=1)
