"""Bootstrap intervals of a metric on one split, and of the difference of two systems.

The queries that count, or their groups, are resampled with replacement many times, and
the interval holds the middle share of the metrics of these samples. It covers the
choice of queries of the same kind, but neither another gallery nor another training
run: see `paired_intervals` for the latter.

Queries of one class are alike and share their relevant records, so that many queries of
few classes are less certain than as many of different classes. With the classes as
groups, the intervals include this.

References:
  Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13,
  https://doi.org/10.1201/9780429246593; Sakai, Evaluating Evaluation Metrics based
  on the Bootstrap, 2006, https://doi.org/10.1145/1148170.1148261; whole groups:
  Field and Welsh, Bootstrapping Clustered Data, 2007,
  https://doi.org/10.1111/j.1467-9868.2007.00593.x.
"""

from collections.abc import Mapping
import dataclasses

import numpy as np

from deeprank_jax.evaluation.calibration import check_share
from deeprank_jax.evaluation.scores import QueryScores

# Groups of queries below which an interval over them is too narrow to be believed.
LEAST_GROUPS = 10
_NUM_SAMPLES = 1000
# Counts of sampled queries held at a time: 32 MiB as float64.
_BLOCK_VALUES = 2**22


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interval:
    """A number and the ends of its interval.

    Attributes:
      value: Value of the metric, or difference of two, on the queries of the split.
      low: Lower end, in the unit of the metric.
      high: Upper end.
      num_queries: Number of queries that count; if 0, value and ends are 0.
      num_groups: Number of groups of these queries; each is a group of its own if no
        groups are given. With fewer than `LEAST_GROUPS` the interval is too narrow.
    """

    value: float
    low: float
    high: float
    num_queries: int
    num_groups: int

    @property
    def is_known(self) -> bool:
        """True if there are groups enough for an interval to be believed."""
        return self.num_groups >= LEAST_GROUPS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compared:
    """A metric of one system among several.

    Attributes:
      interval: Metric and its interval.
      difference: Metric of the first system minus this one, with its paired interval;
        None for the first system itself.
    """

    interval: Interval
    difference: Interval | None


def compare(
    systems: Mapping[str, Mapping[str, QueryScores]],
    *,
    groups: np.ndarray | None = None,
    confidence: float = 0.95,
    num_samples: int = _NUM_SAMPLES,
    seed: int = 0,
) -> dict[str, dict[str, Compared]]:
    """Compares all systems with the first, in every metric, on the same samples.

    Each sample holds the same queries for all systems, so that queries that are hard
    for both of two do not widen the interval of their difference. The interval of a
    plain sum, such as score-at-top-K, is that of the sum over as many queries.

    Args:
      systems: Scores `[Q]` by system and metric, row by row of the same queries.
        Samples are from the queries that count for any of them; a sample without a
        query that counts for a metric is ignored for that metric.
      groups: Optional `[Q]` int, group of each query; groups are sampled as a whole.
      confidence: Confidence of the intervals, in (0, 1).
      num_samples: Number of bootstrap samples, at least 1.
      seed: Seed of the samples.

    Returns:
      Percentile intervals, by system and metric.

    Raises:
      ValueError: The confidence or the number of samples is out of range, there is not
        one group per query, or scores of one name are of different splits or kinds.
    """
    check_share("confidence", confidence, below_one=True)
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}.")
    _check_same_queries(systems, groups)
    scores = [x for metrics in systems.values() for x in metrics.values()]
    rows = iter(_resample(scores, groups, num_samples, seed) if scores else ())
    samples = {
        name: {metric: next(rows) for metric in metrics}
        for name, metrics in systems.items()
    }
    ends = ((1 - confidence) / 2, (1 + confidence) / 2)
    first = next(iter(systems), "")
    return {
        name: {
            metric: _compare(
                (x, samples[name][metric]),
                (systems[first][metric], samples[first][metric])
                if name != first and metric in systems[first]
                else None,
                groups,
                ends,
            )
            for metric, x in metrics.items()
        }
        for name, metrics in systems.items()
    }


def _compare(
    system: tuple[QueryScores, np.ndarray],
    first: tuple[QueryScores, np.ndarray] | None,
    groups: np.ndarray | None,
    ends: tuple[float, float],
) -> Compared:
    """Returns a metric with its intervals, from scores and samples of two systems."""
    scores, samples = system
    difference = None
    if first is not None:
        difference = _interval(
            first[0].value - scores.value,
            first[1] - samples,
            first[0].counts | scores.counts,
            groups,
            ends,
        )
    interval = _interval(scores.value, samples, scores.counts, groups, ends)
    return Compared(interval=interval, difference=difference)


def interval(
    scores: QueryScores,
    *,
    groups: np.ndarray | None = None,
    confidence: float = 0.95,
    num_samples: int = _NUM_SAMPLES,
    seed: int = 0,
) -> Interval:
    """Returns a metric with its percentile interval over queries, or their groups.

    Systems with the same number of queries, or groups, that count get the same samples.

    Args:
      scores: `[Q]` scores of one system.
      groups: Optional `[Q]` int, see `compare`.
      confidence: Confidence of the interval, in (0, 1).
      num_samples: Number of bootstrap samples, at least 1.
      seed: Seed of the samples.

    Raises:
      ValueError: See `compare`.
    """
    comparison = compare(
        {"": {"": scores}},
        groups=groups,
        confidence=confidence,
        num_samples=num_samples,
        seed=seed,
    )
    return comparison[""][""].interval


def difference(
    a: QueryScores,
    b: QueryScores,
    *,
    groups: np.ndarray | None = None,
    confidence: float = 0.95,
    num_samples: int = _NUM_SAMPLES,
    seed: int = 0,
) -> Interval:
    """Returns the difference `a - b` of one metric with its paired interval.

    Args:
      a: `[Q]` scores of one system.
      b: `[Q]` scores of another on the same split, row by row of the same queries. A
        query counts if it does for either.
      groups: Optional `[Q]` int, see `compare`.
      confidence: Confidence of the interval, in (0, 1).
      num_samples: Number of bootstrap samples, at least 1.
      seed: Seed of the samples.

    Raises:
      ValueError: See `compare`.
    """
    comparison = compare(
        {"a": {"": a}, "b": {"": b}},
        groups=groups,
        confidence=confidence,
        num_samples=num_samples,
        seed=seed,
    )
    paired = comparison["b"][""].difference
    assert paired is not None
    return paired


def _check_same_queries(
    systems: Mapping[str, Mapping[str, QueryScores]], groups: np.ndarray | None
) -> None:
    first: dict[str, QueryScores] = {}
    for metrics in systems.values():
        for metric, b in metrics.items():
            a = first.setdefault(metric, b)
            if len(a.values) != len(b.values) or a.is_sum != b.is_sum:
                kinds = ["sum" if scores.is_sum else "mean" for scores in (a, b)]
                raise ValueError(
                    f"A {kinds[0]} over {len(a.values)} queries and a {kinds[1]} over "
                    f"{len(b.values)} cannot be comparison: measure both systems with "
                    "one evaluator, and compare the same metric."
                )
    sizes = {len(x.values) for x in first.values()}
    if groups is not None:
        sizes.add(len(groups))
    if len(sizes) > 1:
        raise ValueError(
            "All metrics and the groups must be of the same queries, got "
            f"{sorted(sizes)} of them: measure all on one split, and give a group for "
            "each of its records."
        )


def _resample(
    scores: list[QueryScores], groups: np.ndarray | None, num_samples: int, seed: int
) -> np.ndarray:
    """Returns each metric on each sample of the queries that count for any, `[M, S]`.

    NaN where the sample has no query that counts for the metric.
    """
    counts = np.logical_or.reduce([x.counts for x in scores])
    columns = np.stack(
        [column[counts] for x in scores for column in (x.values, x.weights)], axis=1
    )
    if groups is not None:
        _, group = np.unique(np.asarray(groups)[counts], return_inverse=True)
        sums = np.zeros((group.max(initial=-1) + 1, columns.shape[1]))
        np.add.at(sums, group, columns)
        columns = sums
    num = len(columns)
    totals = np.zeros((num_samples, 2 * len(scores)))
    rng = np.random.default_rng(seed)
    step = max(1, _BLOCK_VALUES // max(num, 1))
    for start in range(0, num_samples if num else 0, step):
        size = min(step, num_samples - start)
        sampled = rng.integers(0, num, (size, num))
        sampled += num * np.arange(size)[:, None]
        times = np.bincount(sampled.reshape(-1), minlength=size * num)
        totals[start : start + size] = times.reshape(size, num) @ columns
    return np.stack(
        [
            _metric(totals[:, 2 * i], totals[:, 2 * i + 1], x.is_sum)
            for i, x in enumerate(scores)
        ]
    )


def _metric(values: np.ndarray, weights: np.ndarray, is_sum: bool) -> np.ndarray:
    total = values if is_sum else values / np.where(weights > 0, weights, 1.0)
    return np.where(weights > 0, total, np.nan)


def _interval(
    value: float,
    samples: np.ndarray,
    counts: np.ndarray,
    groups: np.ndarray | None,
    ends: tuple[float, float],
) -> Interval:
    finite = samples[np.isfinite(samples)]
    low, high = np.quantile(finite, ends) if len(finite) else (value, value)
    num = num_groups = int(np.count_nonzero(counts))
    if groups is not None:
        num_groups = len(np.unique(np.asarray(groups)[counts]))
    return Interval(
        value=value,
        low=float(low),
        high=float(high),
        num_queries=num,
        num_groups=num_groups,
    )
