"""Metrics of listed pairs: definitions, ties, intervals and pairs that do not count."""

import dataclasses

import numpy as np
import pytest
import sklearn.metrics

from deeprank_jax.errors import DataError
from deeprank_jax.evaluation import NothingToMeasureError, Pairs, bootstrap, pairs
from deeprank_jax.sampling.pair_sampler import ListedPairs

METRICS = ("roc_auc", "average_precision", "best_accuracy")


def create_listed(indices, is_similar, **options):
    return ListedPairs(
        path="p.csv",
        indices=np.array(indices, np.int32).reshape(-1, 2),
        is_similar=np.array(is_similar, bool),
        **options,
    )


def create_evaluator(indices, is_similar, num_records=40):
    listed = create_listed(indices, is_similar)
    labels = np.zeros((num_records, 1), np.int32)
    return Pairs(labels, "test", lambda file: listed, file="p.csv")


def random_case(seed, *, size=60, values=None):
    """Returns pairs of 40 images, and embeddings on a line, maybe with many ties."""
    rng = np.random.default_rng(seed)
    indices = np.array([rng.choice(40, 2, replace=False) for _ in range(size)])
    embeddings = rng.normal(size=(40, 1))
    if values is not None:
        embeddings = rng.integers(0, values, (40, 1)).astype(float)
    distances = np.abs(np.diff(embeddings[indices, 0], axis=1))[:, 0]
    is_similar = distances + rng.normal(size=size) < 1
    return indices, is_similar, embeddings, distances


@pytest.mark.parametrize("values", [None, 3])
@pytest.mark.parametrize("seed", range(5))
def test_the_metrics_are_those_of_scikit_learn(seed, values):
    indices, is_similar, embeddings, distances = random_case(seed, values=values)
    metrics = dict(create_evaluator(indices, is_similar).run(embeddings))
    auc = sklearn.metrics.roc_auc_score(is_similar, -distances)
    ap = sklearn.metrics.average_precision_score(is_similar, -distances)
    assert metrics["roc_auc"] == pytest.approx(auc, abs=1e-12)
    assert metrics["average_precision"] == pytest.approx(ap, abs=1e-12)
    accuracies = [
        np.mean((distances <= limit) == is_similar) for limit in (-1, *distances)
    ]
    assert metrics["best_accuracy"] == pytest.approx(max(accuracies), abs=1e-12)
    assert metrics["num_pairs"] == 60
    assert metrics["num_similar"] == is_similar.sum()


def test_metrics_by_hand():
    """Distances 1, 2, 2, 5, of which the second 2 and the 5 are different."""
    embeddings = np.array([[0.0], [1.0], [2.0], [-2.0], [5.0]])
    listed = [[0, 1], [0, 2], [3, 0], [4, 0]], [1, 1, 0, 0]
    metrics = dict(create_evaluator(*listed, num_records=5).run(embeddings))
    assert metrics == {
        "roc_auc": (2 + 1.5) / 4,
        "average_precision": pytest.approx((1 + 2 / 3) / 2),
        "best_accuracy": 3 / 4,
        "num_pairs": 4,
        "num_similar": 2,
    }


@pytest.mark.parametrize("name", ["roc_auc", "average_precision"])
@pytest.mark.parametrize("values", [None, 3])
def test_scores_are_the_change_with_the_weight_of_a_pair(name, values):
    _, is_similar, _, distances = random_case(1, values=values)
    of_library = {
        "roc_auc": sklearn.metrics.roc_auc_score,
        "average_precision": sklearn.metrics.average_precision_score,
    }[name]
    places = np.unique(distances, return_inverse=True)[1]
    scores = getattr(pairs, name)(places, is_similar)
    step, size = 1e-4, len(places)
    for i in range(size):
        sides = []
        for sign in (-1, 1):
            weights = np.ones(size)
            weights[i] += sign * step
            sides.append(of_library(is_similar, -distances, sample_weight=weights))
        slope = (sides[1] - sides[0]) / 2 / step
        assert (scores[i] - scores.mean()) / size == pytest.approx(slope, abs=1e-6)


def test_the_interval_of_roc_auc_is_delong_s():
    """The variance is that of both kinds of pairs, each image in one pair."""
    rng = np.random.default_rng(0)
    num_similar, num_different = 150, 50
    size = num_similar + num_different
    distances = np.abs(rng.normal(size=size)) + np.repeat([0, 1], [150, 50])
    is_similar = np.arange(size) < num_similar
    embeddings = np.zeros((2 * size, 1))
    embeddings[size:, 0] = distances
    indices = np.stack([np.arange(size), size + np.arange(size)], axis=1)
    measured = create_evaluator(indices, is_similar, 2 * size).measure(embeddings)
    near, far = distances[is_similar], distances[~is_similar]
    wins = (near[:, None] < far) + 0.5 * (near[:, None] == far)
    parts = wins.mean(1).var(ddof=1) / 150, wins.mean(0).var(ddof=1) / 50
    assert min(parts) > 0.4 * sum(parts)  # Without either it would be too narrow.
    interval = bootstrap.interval(measured["roc_auc"], groups=np.arange(2 * size))
    assert interval.value == pytest.approx(wins.mean())
    width = interval.high - interval.low
    assert width == pytest.approx(2 * 1.96 * np.sqrt(sum(parts)), rel=0.1)


def test_a_pair_counts_for_its_first_image_and_if_both_images_do():
    indices, is_similar, embeddings, _ = random_case(2)
    where = np.arange(40) % 7 > 0
    measured = create_evaluator(indices, is_similar).measure(embeddings, where)
    counts = where[indices].all(axis=1)
    assert 0 < counts.sum() < 60
    expected = np.bincount(indices[counts, 0], minlength=40)
    np.testing.assert_array_equal(measured["num_pairs"].values, expected)
    alone = create_evaluator(indices[counts], is_similar[counts]).measure(embeddings)
    for name in METRICS:
        np.testing.assert_array_equal(measured[name].values, alone[name].values)
        np.testing.assert_array_equal(measured[name].weights, expected)


def test_the_first_image_is_the_query():
    indices, is_similar, embeddings, _ = random_case(3)
    queries = np.random.default_rng(9).normal(size=(40, 1))
    evaluator = create_evaluator(indices, is_similar)
    metrics = dict(evaluator.run(embeddings, queries=queries))
    distances = np.abs(queries[indices[:, 0]] - embeddings[indices[:, 1]])[:, 0]
    expected = sklearn.metrics.roc_auc_score(is_similar, -distances)
    assert metrics["roc_auc"] == pytest.approx(expected)


@pytest.mark.parametrize("is_similar", [[True, True, False], [False, False, True]])
def test_pairs_of_one_kind_alone_measure_nothing(is_similar):
    evaluator = create_evaluator([[0, 1], [2, 3], [4, 5]], is_similar)
    metrics = dict(evaluator.run(np.ones((40, 1)), np.arange(40) < 4))
    assert metrics == dict.fromkeys([*METRICS, "num_pairs", "num_similar"], 0.0)


def test_a_split_is_named_in_the_path():
    listed = create_listed([[0, 1], [2, 3]], [True, False], num_left_out=3)
    files = []
    read = lambda file: files.append(file) or listed
    labels = np.zeros((4, 1), np.int32)
    evaluator = Pairs(labels, "test", read, file="p_{split}.csv")
    assert files == ["p_test.csv"]
    text = "2 pairs, 1 similar; 3 others have an image of another split"
    assert evaluator.facts() == {"Pairs": text}
    with pytest.raises(ValueError, match="file must be the path"):
        Pairs(labels, "test", read, file="")


@pytest.mark.parametrize(
    ("num", "message"),
    [
        (0, r"p\.csv: none of its 3 pairs has both images in test; add pairs"),
        (1, r"p\.csv: all 1 pairs of test are similar; add some that are different"),
    ],
)
def test_a_split_without_both_kinds_has_nothing_to_measure(num, message):
    whole = create_listed([[0, 1], [2, 3]], [True, False], num_left_out=3)
    listed = dataclasses.replace(
        whole, indices=whole.indices[:num], is_similar=whole.is_similar[:num]
    )
    with pytest.raises(NothingToMeasureError, match=message) as raised:
        Pairs(np.zeros((4, 1), np.int32), "test", lambda file: listed, file="p.csv")
    assert isinstance(raised.value, DataError)
