"""How sure is a number of one split, and a difference of two systems on it?

The bootstrap: as many queries as count, or as many of their groups, are drawn anew,
with replacement, many times, and the interval holds the middle share of the metrics of
those draws that have one. It says what other queries of the same kind would change;
what another gallery or another training run would change, it does not: see `intervals`
for the latter.

Queries of one class are alike, and share what is relevant to them: where they are many,
the number is less sure than as many queries of as many classes would make it. With the
classes as groups, the draws say so.
"""

from collections.abc import Mapping
import dataclasses

import numpy as np

from deeprank_jax.evaluation.calibration import check_share
from deeprank_jax.evaluation.scores import QueryScores

_NUM_SAMPLES = 1000
# How often each query was drawn, held at a time: 32 MiB as float64.
_BLOCK_VALUES = 2**22


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interval:
    """A number and the ends of its interval.

    Attributes:
      value: of the metric, or the difference of two, on the queries as they are.
      low: the lower end, in the metric's own unit.
      high: the upper end.
      num_queries: how many queries count; of none, value and ends are 0.
      num_groups: of how many groups they are, each its own if none are given. Of one,
        the ends are the value itself: such an interval says nothing.
    """

    value: float
    low: float
    high: float
    num_queries: int
    num_groups: int

    @property
    def is_known(self) -> bool:
        """Whether there is enough for an interval: two groups that may vary."""
        return self.num_groups > 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compared:
    """A metric of one system among several.

    Attributes:
      own: the metric and its interval.
      difference: the first system's metric less this one's, with its paired interval;
        None of the first system itself.
    """

    own: Interval
    difference: Interval | None


def compare(
    systems: Mapping[str, Mapping[str, QueryScores]],
    *,
    groups: np.ndarray | None = None,
    confidence: float = 0.95,
    num_samples: int = _NUM_SAMPLES,
    seed: int = 0,
) -> dict[str, dict[str, Compared]]:
    """Compares many systems with the first, in every metric, on the same draws.

    Every draw takes the same queries for all systems, so that what makes a query hard
    for both of two does not widen the interval of their difference. Of a plain sum,
    such as score-at-top-K, it is the interval of the sum over as many queries.

    Args:
      systems: by name and metric the scores `[Q]`, row by row the same queries. All
        are drawn from the queries that count for any of them; a draw without a query
        that counts for a metric says nothing of that.
      groups: optional `[Q]` int, of which group each query is: whole groups are drawn
        in place of queries.
      confidence: of the interval, in (0, 1).
      num_samples: how often the queries are drawn anew, at least 1.
      seed: of the draws.

    Returns:
      Percentile intervals, by system and metric.

    Raises:
      ValueError: the confidence or the number of samples cannot be, there is not one
        group for each query, or scores of one name are not of one metric and one split.

    References:
      Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13,
      https://doi.org/10.1201/9780429246593; Sakai, Evaluating Evaluation Metrics based
      on the Bootstrap, 2006, https://doi.org/10.1145/1148170.1148261; whole groups:
      Field and Welsh, Bootstrapping Clustered Data, 2007,
      https://doi.org/10.1111/j.1467-9868.2007.00593.x.
    """
    check_share("confidence", confidence, below_one=True)
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}.")
    _check_same_queries(systems, groups)
    scores = [x for found in systems.values() for x in found.values()]
    drawn = iter(_resample(scores, groups, num_samples, seed) if scores else ())
    samples = {
        name: {metric: next(drawn) for metric in found}
        for name, found in systems.items()
    }
    ends = ((1 - confidence) / 2, (1 + confidence) / 2)
    first = next(iter(systems), "")
    compared: dict[str, dict[str, Compared]] = {}
    for name, found in systems.items():
        compared[name] = {}
        for metric, own in found.items():
            difference = None
            if name != first and metric in systems[first]:
                other = systems[first][metric]
                difference = _interval(
                    other.value - own.value,
                    samples[first][metric] - samples[name][metric],
                    other.counts | own.counts,
                    groups,
                    ends,
                )
            values = samples[name][metric]
            compared[name][metric] = Compared(
                own=_interval(own.value, values, own.counts, groups, ends),
                difference=difference,
            )
    return compared


def interval(scores: QueryScores, **options) -> Interval:
    """Returns a metric with its percentile interval over queries, or their groups.

    Args:
      scores: `[Q]`, of one system.
      **options: as of `compare`. Systems of which as many queries, or groups of them,
        count get the very same draws.

    Raises:
      ValueError: as `compare`.
    """
    return compare({"": {"": scores}}, **options)[""][""].own


def difference(a: QueryScores, b: QueryScores, **options) -> Interval:
    """Returns the difference `a - b` of one metric with its paired interval.

    Args:
      a: `[Q]`, of one system.
      b: `[Q]`, of another on the same split: row by row the same queries. A query
        counts if it does for either.
      **options: as of `compare`.

    Raises:
      ValueError: as `compare`.
    """
    found = compare({"a": {"": a}, "b": {"": b}}, **options)["b"][""].difference
    assert found is not None
    return found


def _check_same_queries(
    systems: Mapping[str, Mapping[str, QueryScores]], groups: np.ndarray | None
) -> None:
    seen: dict[str, QueryScores] = {}
    for found in systems.values():
        for metric, b in found.items():
            a = seen.setdefault(metric, b)
            if len(a.values) != len(b.values) or a.is_sum != b.is_sum:
                kinds = ["sum" if scores.is_sum else "mean" for scores in (a, b)]
                raise ValueError(
                    f"A {kinds[0]} over {len(a.values)} queries and a {kinds[1]} over "
                    f"{len(b.values)} cannot be compared: measure both systems with "
                    "one evaluator, and compare the same metric."
                )
    sizes = {len(x.values) for x in seen.values()}
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
    """Returns each metric on each draw of the queries that count for any, `[M, S]`.

    NaN where the draw has no query that counts for it.
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
        drawn = rng.integers(0, num, (size, num))
        drawn += num * np.arange(size)[:, None]
        times = np.bincount(drawn.reshape(-1), minlength=size * num)
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
    drawn = samples[np.isfinite(samples)]
    low, high = np.quantile(drawn, ends) if len(drawn) else (value, value)
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
