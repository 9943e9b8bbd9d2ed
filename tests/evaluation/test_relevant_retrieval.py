"""Retrieval by relevance against a loop over queries."""

import numpy as np
import pytest

from deeprank_jax.data.records import Records
from deeprank_jax.evaluation import NothingToMeasureError, RelevantRetrieval


class Nearness:
    """1 of numbers at most 1 apart, .5 of those at most 2 apart."""

    def attributes(self, splits):
        return [records.labels for records in splits]

    def pairwise(self, a, b):
        distance = np.abs(a - b)[..., 0]
        return np.where(distance <= 1, 1.0, np.where(distance <= 2, 0.5, 0.0))


def create_records(numbers):
    return Records(
        name="numbers",
        labels=np.array(numbers, np.int32)[:, None],
        level_names=("number",),
        label_names=(tuple(map(str, range(100))),),
        read=lambda index: b"",
        describe=str,
    )


def naive(numbers, rows, where, ks, min_relevance):
    """Returns the metrics by loops."""
    kind, used = Nearness(), np.flatnonzero(where)
    relevant = lambda i, j: bool(
        kind.pairwise(np.array([numbers[i]]), np.array([numbers[j]])) >= min_relevance
    )
    lists = {name: [] for k in ks for name in (f"recall@{k}", f"precision@{k}")}
    lists["chance"] = []
    for i in used:
        others = [j for j in used if j != i]
        if not any(relevant(i, j) for j in others):
            continue
        others.sort(key=lambda j: (np.sum((rows[i] - rows[j]) ** 2), j))
        hits = [relevant(i, j) for j in others]
        for k in ks:
            lists[f"recall@{k}"].append(any(hits[:k]))
            lists[f"precision@{k}"].append(np.mean(hits[:k]))
        lists["chance"].append(np.mean(hits))
    count = len(lists["chance"])
    del lists["precision@1"]
    means = {name: np.mean(values) for name, values in lists.items()}
    return means | {"num_queries": count}


@pytest.mark.parametrize("min_relevance", [1.0, 0.5])
@pytest.mark.parametrize("masked", [False, True])
def test_metrics_are_those_of_a_loop(min_relevance, masked):
    rng = np.random.default_rng(0)
    numbers = [*rng.integers(0, 40, 49).tolist(), 90]  # Near to none.
    # Small whole numbers, so that many distances are equal.
    rows = np.round(np.array(numbers)[:, None] / 6 + rng.normal(size=(50, 3)))
    where = np.arange(50) % 4 > 0 if masked else np.ones(50, bool)
    ks = (1, 3, 100)
    evaluator = RelevantRetrieval(
        "test", create_records(numbers), Nearness(), ks=ks, min_relevance=min_relevance
    )
    found = dict(evaluator.run(rows, where))
    expected = naive(numbers, rows, where, ks, min_relevance)
    assert found == pytest.approx(expected)
    assert 0.02 < expected["chance"] < expected["recall@1"] < 1
    assert 0 < expected["num_queries"] < where.sum()
    described = RelevantRetrieval.describe_metrics(ks=ks, min_relevance=min_relevance)
    assert described.keys() == found.keys()


def test_relevances_are_compared_block_by_block(monkeypatch):
    numbers = list(range(20))
    rows = np.random.default_rng(0).normal(size=(20, 2))
    expected = naive(numbers, rows, np.ones(20, bool), (1, 2), 1.0)
    module = "deeprank_jax.evaluation.relevant_retrieval._BLOCK_PAIRS"
    monkeypatch.setattr(module, 33)
    evaluator = RelevantRetrieval(
        "test", create_records(numbers), Nearness(), ks=(1, 2)
    )
    assert dict(evaluator.run(rows)) == pytest.approx(expected)


def test_of_one_record_nothing_counts():
    evaluator = RelevantRetrieval("test", create_records([0, 1]), Nearness())
    values = dict(evaluator.run(np.zeros((2, 3)), np.array([True, False])))
    assert set(values.values()) == {0.0}


def test_a_split_without_relevant_images_is_not_measured():
    with pytest.raises(NothingToMeasureError, match="No two images of test have a"):
        RelevantRetrieval("test", create_records([0, 10, 20]), Nearness())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(ks=()), "ks must be cut-offs"),
        (dict(ks=(0, 1)), "ks must be cut-offs"),
        (dict(min_relevance=0.0), "min_relevance must be above 0, got 0"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        RelevantRetrieval("test", create_records([0, 1]), Nearness(), **options)
