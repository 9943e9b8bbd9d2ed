"""From which distance on are two images not similar any more?

A threshold is calibrated to a wished precision: of the pairs at most that far apart,
at least that share is of one class. How many of all pairs are of one class differs
from split to split and from one use to the next, so the precision is that of pairs of
which a given share, `prior`, is: the same distance then means the same elsewhere.
"""

from collections.abc import Iterator
import dataclasses

import numpy as np

_MAX_RECORDS = 4096


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verification:
    """How well a distance tells pairs of one class from others.

    Attributes:
      distance: pairs at most that far apart, in squared distance, are called similar.
      precision: which share of these is of one class, were a share `prior` of all; NaN
        if none is called similar.
      recall: which share of the pairs of one class is called similar; NaN without any.
      false_positive_rate: which share of the other pairs is; NaN without any.
      num_pairs: how many pairs were looked at.
    """

    distance: float
    precision: float
    recall: float
    false_positive_rate: float
    num_pairs: int


def calibrate(
    embeddings: np.ndarray,
    labels: np.ndarray,
    precision: float,
    *,
    prior: float = 0.5,
    max_records: int = _MAX_RECORDS,
    seed: int = 0,
) -> Verification | None:
    """Finds the largest distance at which a wished precision is kept.

    Args:
      embeddings: `[N, D]` finite floats.
      labels: `[N]` ints, the class of each record.
      precision: in (0, 1].
      prior: in (0, 1), the share of pairs of one class that the precision is for.
      max_records: of more, whole classes are drawn until so many are there.
      seed: of that draw.

    Returns:
      The threshold, halfway to the next pair; None if no distance keeps the precision,
      or not both kinds of pairs are there. Pairs that are equally far are on one side
      of it.

    Raises:
      ValueError: the precision or the prior cannot be.
    """
    if not 0 < precision <= 1:
        raise ValueError(f"The precision must be in (0, 1], got {precision}.")
    if not 0 < prior < 1:
        raise ValueError(f"The prior must be in (0, 1), got {prior}.")
    distances, is_same = _pairs(embeddings, labels, max_records, seed)
    if not 0 < np.count_nonzero(is_same) < len(is_same):
        return None
    order = np.argsort(distances, kind="stable")
    distances, is_same = distances[order], is_same[order]
    recall, false = (np.cumsum(x) / np.count_nonzero(x) for x in (is_same, ~is_same))
    precisions = prior * recall / (prior * recall + (1 - prior) * false)
    # Only where the next pair is farther is there room for a threshold.
    ends = np.append(distances[1:] > distances[:-1], True)
    kept = np.flatnonzero(ends & (precisions >= precision))
    if not len(kept):
        return None
    last = kept[-1]
    beyond = distances[min(last + 1, len(distances) - 1)]
    return Verification(
        distance=float((distances[last] + beyond) / 2),
        precision=float(precisions[last]),
        recall=float(recall[last]),
        false_positive_rate=float(false[last]),
        num_pairs=len(distances),
    )


def verify(
    embeddings: np.ndarray,
    labels: np.ndarray,
    distance: float,
    *,
    prior: float = 0.5,
    max_records: int = _MAX_RECORDS,
    seed: int = 0,
) -> Verification:
    """Measures a distance that was chosen on other records.

    Args:
      embeddings: `[N, D]` finite floats.
      labels: `[N]` ints, the class of each record.
      distance: pairs at most that far apart are called similar.
      prior: as of `calibrate`.
      max_records: as of `calibrate`.
      seed: as of `calibrate`.
    """
    distances, is_same = _pairs(embeddings, labels, max_records, seed)
    near = distances <= distance
    share = lambda of: float(np.mean(near[of])) if of.any() else float("nan")
    recall, false = share(is_same), share(~is_same)
    called = prior * recall + (1 - prior) * false
    return Verification(
        distance=distance,
        precision=prior * recall / called if called else float("nan"),
        recall=recall,
        false_positive_rate=false,
        num_pairs=len(distances),
    )


def _pairs(
    embeddings: np.ndarray, labels: np.ndarray, max_records: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distance of each pair `[P]` float32, and whether it is one class."""
    chosen = _choose(labels, max_records, seed)
    rows, labels = np.asarray(embeddings, np.float64)[chosen], labels[chosen]
    pieces = [(np.zeros(0, np.float32), np.zeros(0, bool))]
    pieces += list(_pairs_by_row(rows, labels))
    return tuple(map(np.concatenate, zip(*pieces, strict=True)))  # pyrefly: ignore


def _pairs_by_row(
    rows: np.ndarray, labels: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    norms = np.einsum("nd,nd->n", rows, rows)
    for i in range(len(rows) - 1):
        # float64: the difference of nearly equal numbers keeps enough of them.
        squares = norms[i] + norms[i + 1 :] - 2.0 * rows[i + 1 :] @ rows[i]
        yield (
            np.maximum(squares, 0.0).astype(np.float32),
            labels[i + 1 :] == labels[i],
        )


def _choose(labels: np.ndarray, max_records: int, seed: int) -> np.ndarray:
    """Returns the indices of all records, or of whole classes drawn at random."""
    if len(labels) <= max_records:
        return np.arange(len(labels))
    found, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(found))
    # At least one class, however large it is.
    num = max(1, int(np.searchsorted(np.cumsum(counts[order]), max_records, "right")))
    return np.flatnonzero(np.isin(inverse.reshape(-1), order[:num]))
