"""Intervals over queries, by drawing them one at a time and by what they promise."""

import tracemalloc

import numpy as np
import pytest

from deeprank_jax.evaluation import bootstrap
from deeprank_jax.evaluation.scores import QueryScores


def random_scores(seed, *, num=30, is_sum=False):
    """Weighted values; some queries do not count."""
    rng = np.random.default_rng(seed)
    weights = np.append([0, 2], rng.integers(0, 4, num - 2)).astype(float)
    return QueryScores(rng.normal(1.0, 1.0, num) * weights, weights, is_sum)


def resampled(systems, counts, num_samples, seed):
    """Yields each system's metric for each draw, one query at a time."""
    rows = np.flatnonzero(counts)
    drawn = np.random.default_rng(seed).integers(0, len(rows), (num_samples, len(rows)))
    for draw in drawn:
        metrics = []
        for scores in systems:
            total, weight = 0.0, 0.0
            for i in draw:
                total += scores.values[rows[i]]
                weight += scores.weights[rows[i]]
            metrics.append(total if scores.is_sum else total / weight if weight else 0)
        yield metrics


@pytest.mark.parametrize("is_sum", [False, True])
def test_an_interval_is_its_definition(is_sum, monkeypatch):
    scores = random_scores(0, is_sum=is_sum)
    assert 0 < scores.counts.sum() < 30
    found = bootstrap.interval(scores, confidence=0.9, num_samples=70, seed=3)
    samples = [row[0] for row in resampled([scores], scores.counts, 70, 3)]
    low, high = np.quantile(samples, [0.05, 0.95])
    assert low < found.value < high
    assert found.value == scores.value
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)
    assert found.num_queries == scores.counts.sum()
    monkeypatch.setattr(bootstrap, "_BLOCK_VALUES", 90)  # Several blocks.
    blocked = bootstrap.interval(scores, confidence=0.9, num_samples=70, seed=3)
    assert (blocked.low, blocked.high) == pytest.approx((low, high), rel=1e-12)


@pytest.mark.parametrize("is_sum", [False, True])
def test_a_difference_is_its_definition(is_sum):
    a, b = random_scores(0, is_sum=is_sum), random_scores(1, is_sum=is_sum)
    counts = a.counts | b.counts
    assert max(a.counts.sum(), b.counts.sum()) < counts.sum() < 30
    found = bootstrap.difference(a, b, num_samples=70)
    samples = [one - two for one, two in resampled([a, b], counts, 70, 0)]
    low, high = np.quantile(samples, [0.025, 0.975])
    assert found.value == a.value - b.value
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)
    assert found.num_queries == counts.sum()
    assert low < high


@pytest.mark.parametrize("is_sum", [False, True])
def test_whole_groups_are_drawn(is_sum):
    a, b = random_scores(0, is_sum=is_sum), random_scores(1, is_sum=is_sum)
    counts = a.counts | b.counts
    groups = np.arange(30) % 7 + 10
    groups[0] = -5  # Of this one, no query counts.
    assert not counts[0]
    members = [np.flatnonzero(counts & (groups == g)) for g in np.unique(groups)]
    members = [rows for rows in members if len(rows)]
    drawn = np.random.default_rng(0).integers(0, len(members), (70, len(members)))
    samples = []
    for draw in drawn:
        rows = np.concatenate([members[i] for i in draw])
        one, two = (
            x.values[rows].sum() / (1 if is_sum else x.weights[rows].sum())
            for x in (a, b)
        )
        samples.append(one - two)
    found = bootstrap.difference(a, b, num_samples=70, groups=groups)
    low, high = np.quantile(samples, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)
    assert found.num_queries == counts.sum()
    alone = bootstrap.difference(a, b, num_samples=70, groups=np.arange(30))
    assert alone == bootstrap.difference(a, b, num_samples=70)


def test_all_systems_and_metrics_are_compared_on_the_same_draws():
    systems = {
        name: {
            "mean": random_scores(seed),
            "sum": random_scores(seed + 1, is_sum=True),
            "all": QueryScores(np.full(30, 3.0 + seed), np.ones(30)),
        }
        for seed, name in enumerate(("a", "b", "c"))
    }
    del systems["b"]["sum"]
    found = bootstrap.compare(systems, num_samples=70)
    assert {n: list(x) for n, x in found.items()} == {
        n: list(systems[n]) for n in "abc"
    }
    # All queries count for one of the metrics, so all are drawn for each.
    for name in "bc":
        a, own = systems["a"]["mean"], systems[name]["mean"]
        pairs = list(resampled([a, own], np.ones(30, bool), 70, 0))
        samples = np.array([[x, y, x - y] for x, y in pairs])
        ends = np.quantile(samples, [0.025, 0.975], axis=0)
        told = found[name]["mean"]
        assert (told.interval.low, told.interval.high) == pytest.approx(
            tuple(ends[:, 1])
        )
        assert told.difference.value == a.value - own.value
        less = told.difference.low, told.difference.high
        assert less == pytest.approx(tuple(ends[:, 2]))
    assert all(x.difference is None for x in found["a"].values())
    none = found["c"]["all"].difference
    assert (none.value, none.low, none.high) == pytest.approx((-2, -2, -2))
    assert bootstrap.compare({}) == {}
    assert bootstrap.compare({"a": {}}) == {"a": {}}


def test_a_draw_without_a_query_of_a_metric_says_nothing_of_it():
    """The only one is in two draws of three, and 10 in each of these."""
    a, rows = random_scores(0), np.eye(30)[5]
    b = QueryScores(40 * rows, 4 * rows)
    found = bootstrap.compare({"a": {"x": a}, "b": {"x": b}}, num_samples=70)
    own, less = found["b"]["x"].interval, found["b"]["x"].difference
    assert (own.value, own.low, own.high) == (10, 10, 10)
    assert (own.num_queries, own.is_known) == (1, False)
    counts = a.counts | b.counts
    samples = np.array(list(resampled([a, b], counts, 70, 0)))
    has = samples[:, 1] == 10
    assert 0.5 < has.mean() < 0.8
    low, high = np.quantile(samples[has, 0] - 10, [0.025, 0.975])
    assert (less.low, less.high) == pytest.approx((low, high), rel=1e-12)
    assert less.is_known


@pytest.mark.parametrize("is_sum", [False, True])
def test_a_metric_of_few_classes_is_drawn_from_those_it_has(is_sum):
    """Of 200 classes three have queries that count: most draws have one at least."""
    groups = np.repeat(np.arange(200), 5)
    few = np.isin(groups, (3, 77, 150))
    rng = np.random.default_rng(0)
    weights = few * 1.0
    scores = QueryScores(few * (0.8 + 0.01 * rng.random(1000)), weights, is_sum)
    everyone = QueryScores(np.ones(1000), np.ones(1000))
    found = bootstrap.compare({"": {"few": scores, "all": everyone}}, groups=groups)
    own = found[""]["few"].interval
    assert (own.num_queries, own.num_groups) == (15, 3)
    least = scores.values[few].reshape(3, 5).sum(axis=1).min()
    assert own.low >= (least if is_sum else least / 5) > 0.7


def test_of_few_groups_nothing_is_known():
    scores = QueryScores(np.random.default_rng(0).random(50), np.ones(50))
    found = bootstrap.interval(scores, groups=np.zeros(50, int))
    assert (found.num_queries, found.num_groups) == (50, 1)
    assert not found.is_known
    assert found.low == pytest.approx(found.high)
    for num, is_known in ((2, False), (9, False), (10, True)):
        few = bootstrap.interval(scores, groups=np.arange(50) % num)
        assert few.is_known == is_known


def test_systems_with_as_many_queries_get_the_same_draws():
    """The values of one are twice the other's: so must be the ends."""
    one = random_scores(0)
    two = QueryScores(2 * one.values, one.weights)
    first, second = bootstrap.interval(one), bootstrap.interval(two)
    assert (second.low, second.high) == pytest.approx((2 * first.low, 2 * first.high))
    assert first != bootstrap.interval(one, seed=1)
    again = bootstrap.difference(two, one)
    assert (again.low, again.high) == pytest.approx((first.low, first.high))
    none = bootstrap.difference(one, one)
    assert (none.value, none.low, none.high) == (0.0, 0.0, 0.0)


def test_queries_that_do_not_count_change_nothing():
    scores = random_scores(0)
    fewer = QueryScores(scores.values[scores.counts], scores.weights[scores.counts])
    assert bootstrap.interval(scores) == bootstrap.interval(fewer)


@pytest.mark.parametrize("is_sum", [False, True])
def test_degenerate_numbers_of_queries_have_defined_intervals(is_sum):
    one = QueryScores(np.array([0.0, 0.6]), np.array([0.0, 2.0]), is_sum)
    found = bootstrap.interval(one)
    value = 0.6 if is_sum else 0.3
    assert (found.value, found.num_queries) == (value, 1)
    assert (found.low, found.high) == pytest.approx((value, value))
    for num in 0, 2:
        none = QueryScores(np.zeros(num), np.zeros(num), is_sum)
        expected = bootstrap.Interval(
            value=0.0, low=0.0, high=0.0, num_queries=0, num_groups=0
        )
        assert bootstrap.interval(none) == expected
        assert bootstrap.difference(none, none) == expected


def simulate(rng, num):
    """Two systems on queries of varying weight, hard for one where for the other."""
    hard, weights = rng.normal(size=num), rng.integers(1, 6, num).astype(float)
    noise = 0.3 * rng.normal(size=(2, num))
    a, b = (1.0 + hard + noise[0]) * weights, (0.8 + hard + noise[1]) * weights
    return QueryScores(a, weights), QueryScores(b, weights)


@pytest.mark.slow
def test_an_interval_covers_the_truth_as_often_as_it_says():
    """Of 1,000 data sets; three standard errors of a share of .9 are .028.

    A percentile interval of 80 queries is a little short, by about .01.
    """
    rng = np.random.default_rng(0)
    covered, widths = np.zeros(3), np.zeros(3)
    for seed in range(1000):
        a, b = simulate(rng, 80)
        options = dict(confidence=0.9, num_samples=200, seed=seed)
        total = QueryScores(a.values, a.weights, is_sum=True)
        intervals = (
            bootstrap.interval(a, **options),
            bootstrap.difference(a, b, **options),
            bootstrap.interval(total, **options),
        )
        truths = (1.0, 0.2, 80 * 3.0)
        covered += [
            x.low <= t <= x.high for x, t in zip(intervals, truths, strict=True)
        ]
        widths += [x.high - x.low for x in intervals]
    assert np.all(covered / 1000 > 0.86), covered
    assert np.all(covered / 1000 < 0.92), covered
    # Of the pair, only the noise is left: .42 of the 1.04 of each alone.
    assert 0.35 < widths[1] / widths[0] < 0.47


def test_groups_cover_the_truth_where_queries_that_are_alike_do_not():
    """Of 40 classes of 7 queries each, most of what varies is shared in a class."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 7)
    covered = np.zeros(2)
    for seed in range(600):
        values = rng.normal(size=40)[groups] + 0.5 * rng.normal(size=280)
        scores = QueryScores(values, np.ones(280))
        for i, ids in enumerate((None, groups)):
            found = bootstrap.interval(
                scores, confidence=0.9, num_samples=200, seed=seed, groups=ids
            )
            covered[i] += found.low <= 0 <= found.high
    alone, grouped = covered / 600
    assert alone < 0.6
    assert 0.84 < grouped < 0.94


def test_memory_does_not_grow_with_the_number_of_draws():
    """As a whole, the draws of 20,000 queries take 160 MB."""
    rng = np.random.default_rng(0)
    scores = QueryScores(rng.random(20_000), np.ones(20_000))
    bootstrap.interval(scores, num_samples=1)
    tracemalloc.start()
    bootstrap.interval(scores)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**27


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"confidence": 1.0}, r"confidence must be in \(0, 1\)"),
        ({"confidence": 0.0}, r"confidence must be in \(0, 1\)"),
        ({"num_samples": 0}, "num_samples must be at least 1, got 0"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        bootstrap.interval(random_scores(0), **options)


def test_what_cannot_be_compared_is_refused():
    for groups in ({"groups": np.zeros(29, int)}, {"groups": np.zeros(0, int)}):
        with pytest.raises(ValueError, match="a group for each of its records"):
            bootstrap.interval(random_scores(0), **groups)
    with pytest.raises(ValueError, match="must be of the same queries"):
        bootstrap.compare({"a": {"x": random_scores(0), "y": random_scores(0, num=9)}})
    with pytest.raises(ValueError, match="mean over 30 queries and a mean over 20"):
        bootstrap.difference(random_scores(0), random_scores(0, num=20))
    with pytest.raises(ValueError, match="A mean over 30 queries and a sum over 30"):
        bootstrap.difference(random_scores(0), random_scores(0, is_sum=True))
