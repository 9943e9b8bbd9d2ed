"""How sure is a number of one split, and a difference of two systems on it?

The bootstrap over queries: as many queries as count are drawn anew, with replacement,
many times, and the interval holds the middle share of the metrics of those draws. It
says what other queries of the same kind would change; what another gallery or another
training run would change, it does not: see `intervals` for the latter.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np

from deeprank_jax.evaluators.scores import QueryScores
from deeprank_jax.evaluators.threshold import check_share

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
      num_queries: how many queries count; of one, the ends are the value itself, and
        of none all three are 0: such an interval says nothing.
    """

    value: float
    low: float
    high: float
    num_queries: int


def interval(
    scores: QueryScores,
    *,
    confidence: float = 0.95,
    num_samples: int = _NUM_SAMPLES,
    seed: int = 0,
) -> Interval:
    """Returns a metric with its percentile interval over queries.

    Of a plain sum, such as score-at-top-K, it is the interval of the sum over as many
    queries.

    Args:
      scores: `[Q]`, of one system.
      confidence: of the interval, in (0, 1).
      num_samples: how often the queries are drawn anew, at least 1.
      seed: of the draws. Systems with the same number of queries that count get the
        very same draws.

    Raises:
      ValueError: the confidence or the number of samples cannot be.

    References:
      Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13,
      https://doi.org/10.1201/9780429246593.
    """
    samples = _resample([scores], scores.counts, confidence, num_samples, seed)
    return _interval(scores.value, samples[0], scores.counts, confidence)


def difference(
    a: QueryScores,
    b: QueryScores,
    *,
    confidence: float = 0.95,
    num_samples: int = _NUM_SAMPLES,
    seed: int = 0,
) -> Interval:
    """Returns the difference `a - b` of one metric with its paired interval.

    Every draw takes the same queries for both, so that what makes a query hard for
    both does not widen the interval.

    Args:
      a: `[Q]`, of one system.
      b: `[Q]`, of another on the same split: row by row the same queries. A query
        counts if it does for either.
      confidence: as of `interval`.
      num_samples: as of `interval`.
      seed: as of `interval`.

    Raises:
      ValueError: as `interval`, or the two are not of one metric and one split.

    References:
      Sakai, Evaluating Evaluation Metrics based on the Bootstrap, 2006,
      https://doi.org/10.1145/1148170.1148261.
    """
    if len(a.values) != len(b.values) or a.is_sum != b.is_sum:
        kinds = ["sum" if scores.is_sum else "mean" for scores in (a, b)]
        raise ValueError(
            f"A {kinds[0]} over {len(a.values)} queries and a {kinds[1]} over "
            f"{len(b.values)} cannot be compared: measure both systems with one "
            "evaluator, and compare the same metric."
        )
    counts = a.counts | b.counts
    one, two = _resample([a, b], counts, confidence, num_samples, seed)
    return _interval(a.value - b.value, one - two, counts, confidence)


def _resample(
    systems: Sequence[QueryScores],
    counts: np.ndarray,
    confidence: float,
    num_samples: int,
    seed: int,
) -> np.ndarray:
    """Returns each system's metric on each draw of the queries that count, `[M, S]`."""
    check_share("confidence", confidence, below_one=True)
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}.")
    num = int(np.count_nonzero(counts))
    totals = np.zeros((num_samples, 2 * len(systems)))
    columns = np.stack(
        [column[counts] for x in systems for column in (x.values, x.weights)], axis=1
    )
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
            for i, x in enumerate(systems)
        ]
    )


def _metric(values: np.ndarray, weights: np.ndarray, is_sum: bool) -> np.ndarray:
    """Returns the metric of each draw; 0 where no query of the draw counts."""
    if is_sum:
        return values
    return values / np.where(weights > 0, weights, 1.0)


def _interval(
    value: float, samples: np.ndarray, counts: np.ndarray, confidence: float
) -> Interval:
    tail = (1 - confidence) / 2
    low, high = np.quantile(samples, (tail, 1 - tail))
    return Interval(
        value=value,
        low=float(low),
        high=float(high),
        num_queries=int(np.count_nonzero(counts)),
    )
