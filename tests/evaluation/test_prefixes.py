"""Metrics of shortened embeddings against those of arrays shortened by hand."""

import numpy as np
import pytest

from deeprank_jax.evaluation import Prefixes, Retrieval
from deeprank_jax.relevance import Hierarchy

RELEVANCE = Hierarchy((0.1, 1.0))


def random_split(size=40, dim=12):
    rng = np.random.default_rng(3)
    fine = rng.integers(0, 8, size)
    labels = np.stack([fine // 2, fine], axis=1)
    rows = rng.normal(size=(8, dim))[fine] + rng.normal(size=(size, dim))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), labels


def test_each_length_is_measured_by_the_shortened_rows():
    rows, labels = random_split()
    where = np.arange(len(rows)) != 7
    values = dict(Prefixes(labels, RELEVANCE, dims=(3, 1, 20)).run(rows, where))
    assert list(values) == [
        f"{name}_{dim}" for dim in (1, 3, 20) for name in ("recall@1", "map@r")
    ]
    for dim in (1, 3, 20):
        short = rows[:, :dim] / np.linalg.norm(rows[:, :dim], axis=1, keepdims=True)
        expected = dict(Retrieval(labels, RELEVANCE).run(short, where))
        for name in ("recall@1", "map@r"):
            assert values[f"{name}_{dim}"] == pytest.approx(expected[name])
    assert values["recall@1_1"] < values["recall@1_20"]


def test_queries_are_shortened_too():
    rows, labels = random_split()
    queries = np.roll(rows, 1, axis=1)
    values = dict(Prefixes(labels, RELEVANCE, dims=(4,)).run(rows, queries=queries))
    short = [
        x[:, :4] / np.linalg.norm(x[:, :4], axis=1)[:, None] for x in (rows, queries)
    ]
    expected = dict(Retrieval(labels, RELEVANCE).run(short[0], queries=short[1]))
    assert values["map@r_4"] == pytest.approx(expected["map@r"])


def test_a_prefix_of_zeros_is_measured():
    rows, labels = random_split()
    rows[0, :2] = 0.0
    values = dict(Prefixes(labels, RELEVANCE, dims=(2,)).run(rows))
    assert all(np.isfinite(value) for value in values.values())


def test_the_metrics_are_described_by_length():
    described = Prefixes.describe_metrics(dims=(16, 64))
    assert list(described) == ["recall@1_16", "recall@1_64", "map@r_16", "map@r_64"]
    assert "first 64 numbers" in described["recall@1_64"]


@pytest.mark.parametrize("dims", [(), (0,), (2.5,)])
def test_lengths_that_are_no_counts_are_refused(dims):
    _, labels = random_split()
    with pytest.raises(ValueError, match="dims must be whole numbers of at least 1"):
        Prefixes(labels, RELEVANCE, dims=dims)
