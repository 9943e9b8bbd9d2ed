"""From which distance on are two images not similar any more?

A threshold is calibrated to a wished precision: of the pairs at most that far apart,
at least that share is of one class. How many of all pairs are of one class differs
from split to split and from one use to the next, so the precision is that of pairs of
which a given share, `prior`, is: the same distance then means the same elsewhere.
"""

from collections.abc import Iterator, Sequence
import dataclasses

import numpy as np

from deeprank_jax.evaluation.scores import check_rows

_MAX_RECORDS = 4096
# Records compared with all later ones at a time.
_BLOCK = 256


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
      max_records: of more, classes are drawn at random until so many are there, of
        each at most half as many.
      seed: of that draw.

    Returns:
      The threshold, halfway to the next pair; None if no distance keeps the precision,
      or not both kinds of pairs are there. Pairs that are equally far are on one side
      of it.

    Raises:
      ValueError: the precision or the prior cannot be, there is not one embedding for
        each label, or one is not finite.
    """
    check_share("precision", precision)
    check_share("prior", prior, below_one=True)
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
    low, high = distances[last], distances[min(last + 1, len(distances) - 1)]
    middle = low + (high - low) / 2
    return Verification(
        # Between neighbouring numbers there is none.
        distance=float(middle if middle < high else low),
        precision=float(precisions[last]),
        recall=float(recall[last]),
        false_positive_rate=float(false[last]),
        num_pairs=len(distances),
    )


def check_share(name: str, value: float, *, below_one: bool = False) -> None:
    """Checks that a value is above 0 and at most 1, or below it.

    Raises:
      ValueError: it is not.
    """
    if not 0 < value <= 1 or (below_one and value == 1):
        end = ")" if below_one else "]"
        raise ValueError(f"The {name} must be in (0, 1{end}, got {value}.")


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

    Raises:
      ValueError: the prior cannot be, there is not one embedding for each label, or one
        is not finite.
    """
    check_share("prior", prior, below_one=True)
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


def false_non_match_rate(
    embeddings: np.ndarray,
    labels: np.ndarray,
    false_match_rate: float,
    *,
    max_records: int = _MAX_RECORDS,
    seed: int = 0,
) -> float | None:
    """Returns which share of the pairs of one class a strict threshold misses.

    As `false_non_match_rates` of a single rate.
    """
    options = {"max_records": max_records, "seed": seed}
    found = false_non_match_rates(embeddings, labels, [false_match_rate], **options)
    return None if found is None else found[0]


def false_non_match_rates(
    embeddings: np.ndarray,
    labels: np.ndarray,
    false_match_rates: Sequence[float],
    *,
    max_records: int = _MAX_RECORDS,
    seed: int = 0,
) -> list[float] | None:
    """Returns which share of the pairs of one class strict thresholds miss.

    FNMR at an FMR: the distance is the largest at which at most that share of the
    pairs of two classes is called similar. Pairs that are equally far are on one side
    of it.

    Args:
      embeddings: `[N, D]` finite floats.
      labels: `[N]` ints, the class of each record.
      false_match_rates: each in [0, 1); 0 lets no pair of two classes through.
      max_records: as of `calibrate`.
      seed: as of `calibrate`.

    Returns:
      For each rate a share in `[0, 1]`, 1 less the recall at that distance; 1 if no
      pair may be called similar. None if not both kinds of pairs are there.

    Raises:
      ValueError: a rate cannot be, there is not one embedding for each label, or one is
        not finite.

    References:
      Maio et al., FVC2000: Fingerprint Verification Competition, 2002,
      https://doi.org/10.1109/34.990140.
    """
    for rate in false_match_rates:
        if not 0 <= rate < 1:
            raise ValueError(f"The false match rate must be in [0, 1), got {rate}.")
    distances, is_same = _pairs(embeddings, labels, max_records, seed)
    if not 0 < np.count_nonzero(is_same) < len(is_same):
        return None
    same, others = distances[is_same], distances[~is_same]
    # A rate such as .29 of 100 pairs is 28.999...
    allowed = [
        min(int(rate * len(others) + 1e-9), len(others) - 1)
        for rate in false_match_rates
    ]
    others.partition(sorted({*allowed}))
    return [float(np.mean(same >= others[num])) for num in allowed]


def _pairs(
    embeddings: np.ndarray, labels: np.ndarray, max_records: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distance of each pair `[P]` float32, and whether it is one class."""
    labels = np.asarray(labels)
    check_rows(len(labels), embeddings, None, None)
    chosen = _choose(labels, max_records, seed)
    rows, labels = np.asarray(embeddings, np.float64)[chosen], labels[chosen]
    pieces = [(np.zeros(0, np.float32), np.zeros(0, bool))]
    pieces += list(_pairs_by_block(rows, labels))
    return tuple(map(np.concatenate, zip(*pieces, strict=True)))  # pyrefly: ignore


def _pairs_by_block(
    rows: np.ndarray, labels: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    norms = np.einsum("nd,nd->n", rows, rows)
    for start in range(0, len(rows), _BLOCK):
        block, later = slice(start, start + _BLOCK), slice(start, None)
        # float64: the difference of nearly equal numbers keeps enough of them.
        squares = norms[block, None] + norms[later] - 2.0 * rows[block] @ rows[later].T
        first, second = np.triu_indices(len(squares), 1, len(norms) - start)
        is_same = labels[block, None] == labels[later]
        yield (
            np.maximum(squares[first, second], 0.0).astype(np.float32),
            is_same[first, second],
        )


def _choose(labels: np.ndarray, max_records: int, seed: int) -> np.ndarray:
    """Returns the indices of all records, or of classes drawn at random.

    There are at least two classes, of which one has at most half of the records.
    """
    if len(labels) <= max_records:
        return np.arange(len(labels))
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(labels))
    ordered = shuffled[np.argsort(labels[shuffled], kind="stable")]
    cuts = np.flatnonzero(np.diff(labels[ordered])) + 1
    classes = [part[: max(1, max_records // 2)] for part in np.split(ordered, cuts)]
    classes = [classes[i] for i in rng.permutation(len(classes))]
    sizes = np.cumsum([len(part) for part in classes])
    num = int(np.searchsorted(sizes, max_records, side="right"))
    return np.sort(np.concatenate(classes[: max(2, num)]))
