"""Calibration of the distance up to which two images are called similar.

A threshold is calibrated to a required precision: of the pairs at most that far apart,
at least that share is of one class. The share of pairs of one class differs between
splits and uses, so that precision is computed for a fixed share, `prior`: the same
distance then has the same meaning elsewhere.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import math

import numpy as np

from deeprank_jax.evaluation.scores import check_rows

_MAX_RECORDS = 4096
# Records compared with all later ones at a time.
_BLOCK = 256
# Fewer pairs of one class do not tell which share of them is found.
_MIN_SAME = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verification:
    """Quality of a distance as a threshold between pairs of one class and others.

    Attributes:
      distance: Squared distance up to which pairs are called similar.
      precision: Share of the pairs called similar that are of one class, if a share
        `prior` of all pairs is; NaN if none is called similar.
      recall: Share of the pairs of one class that are called similar; NaN without any.
      false_positive_rate: Share of the other pairs that are called similar; NaN
        without any.
      num_pairs: Number of pairs.
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
    """Returns the largest distance with the required precision.

    Args:
      embeddings: `[N, D]` finite floats.
      labels: `[N]` int, class of each record.
      precision: Required precision, in (0, 1].
      prior: Share of pairs of one class that the precision is for, in (0, 1).
      max_records: Maximal number of records. If there are more, random classes are used
        up to that number, each with at most half of it.
      seed: Seed of that choice.

    Returns:
      The threshold, halfway to the next pair; None if no distance has the precision, or
      one of both kinds of pairs is missing. Pairs that are equally far are on one side
      of it.

    Raises:
      ValueError: The precision or the prior is out of range, there is not one embedding
        per label, or one is not finite.
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
    # A threshold fits only where the next pair is farther.
    ends = np.append(distances[1:] > distances[:-1], True)
    precise = np.flatnonzero(ends & (precisions >= precision))
    if not len(precise):
        return None
    last = precise[-1]
    low, high = distances[last], distances[min(last + 1, len(distances) - 1)]
    middle = low + (high - low) / 2
    return Verification(
        # Adjacent floats have no number in between.
        distance=float(middle if middle < high else low),
        precision=float(precisions[last]),
        recall=float(recall[last]),
        false_positive_rate=float(false[last]),
        num_pairs=len(distances),
    )


def why_too_few(labels: np.ndarray, precision: float, *, prior: float = 0.5) -> str:
    """Returns the reason that records are too few to support a precision, or "".

    A false positive rate that was 0 on `n` pairs is below `3 / n` with a confidence of
    95 % (the rule of three), so that the pairs of two classes must be that many. The
    pairs of one class must be at least 20.

    Args:
      labels: `[N]` int, class of each record.
      precision: Required precision, in (0, 1]; .99 counts above that.
      prior: Share of pairs of one class that the precision is for, in (0, 1).
    """
    check_share("precision", precision)
    check_share("prior", prior, below_one=True)
    sizes = np.unique(np.asarray(labels), return_counts=True)[1]
    num_same = int(np.sum(sizes * (sizes - 1)) // 2)
    num_others = len(labels) * (len(labels) - 1) // 2 - num_same
    precision = min(precision, 0.99)
    rate = prior / (1 - prior) * (1 - precision) / precision
    min_others = math.ceil(3 / rate)
    if num_same >= _MIN_SAME and num_others >= min_others:
        return ""
    return (
        f"validation has {num_same:,} pairs of one class and {num_others:,} of two; a "
        f"precision of {precision:g} needs {_MIN_SAME} and {min_others:,}"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnseenPrecision:
    """Precision of a threshold on classes that it was not calibrated on.

    Attributes:
      mean: Mean over random halves of the classes.
      low: 5 % quantile over them.
      high: 95 % quantile over them.
    """

    mean: float
    low: float
    high: float


def measure_unseen_precision(
    embeddings: np.ndarray,
    labels: np.ndarray,
    precision: float,
    *,
    prior: float = 0.5,
    num_draws: int = 100,
    max_records: int = 1024,
    seed: int = 0,
) -> UnseenPrecision | None:
    """Returns the precision of thresholds on the classes they were not calibrated on.

    For each draw a threshold is calibrated on a random half of the classes and measured
    on the other. With few classes the precision varies widely between the draws.

    Args:
      embeddings: `[N, D]` finite floats.
      labels: `[N]` int, class of each record.
      precision: Required precision, in (0, 1].
      prior: Share of pairs of one class that the precision is for, in (0, 1).
      num_draws: Number of random halves.
      max_records: Maximal number of records, as many of each class as possible.
      seed: Seed of the draws.

    Returns:
      The precision; None if in half of the draws or more there is no threshold or
      nothing to measure it on.

    Raises:
      ValueError: See `calibrate`.
    """
    rng = np.random.default_rng(seed)
    indices = _choose_of_each_class(np.asarray(labels), max_records, rng)
    rows, labels = np.asarray(embeddings)[indices], np.asarray(labels)[indices]
    classes = np.unique(labels)
    precisions = []
    for _ in range(num_draws):
        half = rng.permutation(classes)[: len(classes) // 2]
        is_chosen = np.isin(labels, half)
        calibrated = calibrate(
            rows[is_chosen], labels[is_chosen], precision, prior=prior
        )
        if calibrated is None:
            continue
        others = rows[~is_chosen], labels[~is_chosen]
        precisions.append(verify(*others, calibrated.distance, prior=prior).precision)
    measured = np.array([x for x in precisions if np.isfinite(x)])
    if len(measured) <= num_draws / 2:
        return None
    low, high = np.quantile(measured, (0.05, 0.95))
    return UnseenPrecision(
        mean=float(measured.mean()), low=float(low), high=float(high)
    )


def _choose_of_each_class(
    labels: np.ndarray, max_records: int, rng: np.random.Generator
) -> np.ndarray:
    """Returns the indices of random records, the same number of each class.

    It is at least two, or all of a smaller class. Classes are left out only if there is
    no room for two records of each.
    """
    shuffled = rng.permutation(len(labels))
    _, classes, counts = np.unique(
        labels[shuffled], return_inverse=True, return_counts=True
    )
    order = np.argsort(classes, kind="stable")
    starts = np.cumsum(counts) - counts
    # Place of each record among those of its class.
    places = np.arange(len(labels)) - np.repeat(starts, counts)
    classes_used = rng.permutation(len(counts))[: max(2, max_records // 2)]
    per_class = max(2, max_records // len(classes_used))
    is_chosen = (places < per_class) & np.isin(classes[order], classes_used)
    return np.sort(shuffled[order[is_chosen]])


def check_share(name: str, value: float, *, below_one: bool = False) -> None:
    """Checks that a value is above 0 and at most 1, or below 1.

    Args:
      name: Name of the argument, for the message.
      value: Value to check.
      below_one: True to refuse 1.

    Raises:
      ValueError: The value is out of range.
    """
    if not 0 < value <= 1 or (below_one and value == 1):
        end = ")" if below_one else "]"
        raise ValueError(f"{name} must be in (0, 1{end}, got {value}.")


def verify(
    embeddings: np.ndarray,
    labels: np.ndarray,
    distance: float,
    *,
    prior: float = 0.5,
    max_records: int = _MAX_RECORDS,
    seed: int = 0,
) -> Verification:
    """Measures a threshold that was calibrated on other records.

    Args:
      embeddings: `[N, D]` finite floats.
      labels: `[N]` int, class of each record.
      distance: Squared distance up to which pairs are called similar.
      prior: Share of pairs of one class, see `calibrate`.
      max_records: Maximal number of records, see `calibrate`.
      seed: Seed of the choice of classes.

    Raises:
      ValueError: The prior is out of range, there is not one embedding per label, or
        one is not finite.
    """
    check_share("prior", prior, below_one=True)
    distances, is_same = _pairs(embeddings, labels, max_records, seed)
    near = distances <= distance
    share = lambda of: float(np.mean(near[of])) if of.any() else float("nan")
    recall, false = share(is_same), share(~is_same)
    similar = prior * recall + (1 - prior) * false
    return Verification(
        distance=distance,
        precision=prior * recall / similar if similar else float("nan"),
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
    """Returns the share of the pairs of one class that a strict threshold misses.

    Args:
      embeddings: `[N, D]` finite floats.
      labels: `[N]` int, class of each record.
      false_match_rate: Rate in [0, 1), see `false_non_match_rates`.
      max_records: Maximal number of records, see `calibrate`.
      seed: Seed of the choice of classes.
    """
    options = {"max_records": max_records, "seed": seed}
    rates = false_non_match_rates(embeddings, labels, [false_match_rate], **options)
    return None if rates is None else rates[0]


def false_non_match_rates(
    embeddings: np.ndarray,
    labels: np.ndarray,
    false_match_rates: Sequence[float],
    *,
    max_records: int = _MAX_RECORDS,
    seed: int = 0,
) -> list[float] | None:
    """Returns the shares of the pairs of one class that strict thresholds miss.

    FNMR at an FMR: the distance is the largest at which at most that share of the
    pairs of two classes is called similar. Pairs that are equally far are on one side
    of it.

    Args:
      embeddings: `[N, D]` finite floats.
      labels: `[N]` int, class of each record.
      false_match_rates: Rates in [0, 1); 0 accepts no pair of two classes.
      max_records: Maximal number of records, see `calibrate`.
      seed: Seed of the choice of classes.

    Returns:
      For each rate a share in `[0, 1]`, 1 minus the recall at that distance; 1 if no
      pair may be called similar. None if one of both kinds of pairs is missing.

    Raises:
      ValueError: A rate is out of range, there is not one embedding per label, or one
        is not finite.

    References:
      Maio et al., FVC2000: Fingerprint Verification Competition, 2002,
      https://doi.org/10.1109/34.990140.
    """
    for rate in false_match_rates:
        if not 0 <= rate < 1:
            raise ValueError(f"false_match_rates must be in [0, 1), got {rate}.")
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
    """Returns distances `[P]` float32, and `[P]` bool, True for pairs of one class."""
    labels = np.asarray(labels)
    check_rows(len(labels), embeddings, None, None)
    indices = _choose(labels, max_records, seed)
    rows, labels = np.asarray(embeddings, np.float64)[indices], labels[indices]
    pieces = [(np.zeros(0, np.float32), np.zeros(0, bool))]
    pieces += list(_pairs_by_block(rows, labels))
    return tuple(map(np.concatenate, zip(*pieces, strict=True)))  # pyrefly: ignore


def _pairs_by_block(
    rows: np.ndarray, labels: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    norms = np.einsum("nd,nd->n", rows, rows)
    for start in range(0, len(rows), _BLOCK):
        block, later = slice(start, start + _BLOCK), slice(start, None)
        # In float64 the difference of nearly equal numbers keeps enough digits.
        squares = norms[block, None] + norms[later] - 2.0 * rows[block] @ rows[later].T
        first, second = np.triu_indices(len(squares), 1, len(norms) - start)
        is_same = labels[block, None] == labels[later]
        yield (
            np.maximum(squares[first, second], 0.0).astype(np.float32),
            is_same[first, second],
        )


def _choose(labels: np.ndarray, max_records: int, seed: int) -> np.ndarray:
    """Returns the indices of all records, or of the records of random classes.

    There are at least two classes, each with at most half of the records.
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
