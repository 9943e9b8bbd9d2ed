"""Metrics of binary codes against a loop over queries."""

import numpy as np
import pytest

from deeprank_jax.evaluation import Codes, Retrieval
from deeprank_jax.evaluation import codes as evaluation_codes
from deeprank_jax.relevance import Hierarchy
from deeprank_jax.search import codes as codes_lib

RELEVANCE = Hierarchy((0.1, 1.0))


def random_split(size=60, dim=10):
    rng = np.random.default_rng(3)
    fine = rng.integers(0, 12, size)
    fine[5] = 99  # The only one of its class.
    labels = np.stack([fine // 2, fine], axis=1)
    rows = rng.normal(size=(100, dim))[fine] + rng.normal(size=(size, dim))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), labels


def measure_by_hand(rows, labels, where, queries, num_reordered=0):
    """Returns Recall@1 and MAP@R, number by number."""
    recalls, precisions = [], []
    for i in np.flatnonzero(where):
        others = [j for j in np.flatnonzero(where) if j != i]
        differing = [np.sum((queries[i] > 0) != (rows[j] > 0)) for j in others]
        nearest = [others[j] for j in np.argsort(differing, kind="stable")]
        first = nearest[:num_reordered]
        scores = [sum(queries[i] * np.where(rows[j] > 0, 1, -1)) for j in first]
        nearest[:num_reordered] = [first[j] for j in np.argsort(-np.array(scores))]
        hits = labels[nearest, -1] == labels[i, -1]
        num_relevant = hits.sum()
        if num_relevant:
            recalls.append(hits[0])
            first = hits[:num_relevant]
            at_ranks = np.cumsum(first) / np.arange(1, num_relevant + 1)
            precisions.append((at_ranks * first).sum() / num_relevant)
    return np.mean(recalls), np.mean(precisions)


@pytest.mark.parametrize("with_queries", [False, True])
@pytest.mark.parametrize("block", [1024, 7])
def test_metrics_are_those_of_a_loop(monkeypatch, with_queries, block):
    monkeypatch.setattr(codes_lib, "_BLOCK", block)
    rows, labels = random_split()
    where = np.arange(len(rows)) % 9 != 4
    queries = np.roll(rows, 1, axis=1) if with_queries else rows
    options = {"queries": queries} if with_queries else {}
    values = dict(Codes(labels, RELEVANCE).run(rows, where, **options))
    recall, precision = measure_by_hand(rows, labels, where, queries)
    assert values["recall@1"] == pytest.approx(recall)
    assert values["map@r"] == pytest.approx(precision)
    monkeypatch.setattr(evaluation_codes, "_REORDERED", 20)
    values |= dict(Codes(labels, RELEVANCE).run(rows, where, **options))
    recall, precision = measure_by_hand(rows, labels, where, queries, 20)
    assert values["recall@1_asymmetric"] == pytest.approx(recall)
    assert values["map@r_asymmetric"] == pytest.approx(precision)
    assert values["map@r_asymmetric"] != values["map@r"]
    by_numbers = dict(Retrieval(labels, RELEVANCE).run(rows, where, **options))
    assert values["recall@1_numbers"] == by_numbers["recall@1"]
    assert values["map@r_numbers"] == by_numbers["map@r"]
    assert values["map@r"] != values["map@r_numbers"]


def test_equal_codes_rank_in_the_order_of_records():
    rows = np.ones((4, 3))
    labels = np.array([[0], [1], [1], [0]])
    scores = Codes(labels, Hierarchy((1.0,))).measure(rows)
    np.testing.assert_array_equal(scores["recall@1"].values, [0, 0, 0, 1])


def test_a_record_without_an_embedding_is_left_out():
    rows, labels = random_split()
    rows[3] = np.nan
    where = np.arange(len(rows)) != 3
    values = dict(Codes(labels, RELEVANCE).run(rows, where))
    without = np.delete(np.arange(len(rows)), 3)
    expected = dict(Codes(labels[without], RELEVANCE).run(rows[without]))
    assert values == pytest.approx(expected)


@pytest.mark.parametrize("size", [1, 2])
def test_a_split_without_a_pair_has_no_query(size):
    labels = np.arange(size)[:, None]
    values = dict(Codes(labels, Hierarchy((1.0,))).run(np.ones((size, 3))))
    assert set(values.values()) == {0.0}
