"""Label margins against a search of every pair, and on planted wrong labels."""

import numpy as np
import pytest

from deeprank_jax.search import label_margins as label_margins_lib
from deeprank_jax.search.label_margins import label_margins


def brute_force(embeddings, labels):
    """Returns margin, nearest row of the same label and of another, row by row."""
    answers = []
    for i, row in enumerate(embeddings.astype(np.float64)):
        squares = np.sum((embeddings.astype(np.float64) - row) ** 2, axis=1)
        same = [j for j in range(len(labels)) if labels[j] == labels[i] and j != i]
        other = [j for j in range(len(labels)) if labels[j] != labels[i]]
        to_other = min(other, key=lambda j: squares[j])
        to_same = min(same, key=lambda j: squares[j], default=-1)
        margin = np.nan if to_same < 0 else (squares[to_same] - squares[to_other]) / 2
        answers.append((margin, to_same, to_other))
    return map(np.array, zip(*answers, strict=True))


@pytest.mark.parametrize("pairs", [1, 7 * 40, 2**23])
def test_margins_are_those_of_every_pair(monkeypatch, pairs):
    monkeypatch.setattr(label_margins_lib, "_BLOCK_PAIRS", pairs)
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(40, 8)).astype(np.float32)
    labels = np.r_[rng.integers(0, 6, 39), 99]
    result = label_margins(embeddings, labels)
    margins, same, other = brute_force(embeddings, labels)
    np.testing.assert_array_equal(result.same, same)
    np.testing.assert_array_equal(result.other, other)
    np.testing.assert_allclose(result.margins, margins, atol=1e-5)
    assert result.same[-1] == -1
    assert np.isnan(result.margins[-1])


def test_the_margin_of_unit_vectors_is_a_difference_of_cosines():
    angles = np.radians([0.0, 90.0, 20.0])
    embeddings = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    margin = label_margins(embeddings, np.array([0, 0, 1])).margins[0]
    assert margin == pytest.approx(np.cos(np.radians(20)) - 0.0, abs=1e-6)


def test_far_from_the_origin_the_nearest_rows_are_right():
    rng = np.random.default_rng(1)
    embeddings = rng.normal(size=(60, 4)).astype(np.float32) * 1e-2 + 100.0
    labels = rng.integers(0, 5, 60)
    _, same, other = brute_force(embeddings, labels)
    result = label_margins(embeddings, labels)
    np.testing.assert_array_equal(result.same, same)
    np.testing.assert_array_equal(result.other, other)


def test_wrong_labels_have_the_largest_margins():
    rng = np.random.default_rng(2)
    labels = np.repeat(np.arange(20), 10)
    embeddings = rng.normal(size=(20, 16))[labels] + rng.normal(size=(200, 16)) * 0.2
    wrong = rng.choice(200, 10, replace=False)
    labels[wrong] = (labels[wrong] + rng.integers(1, 20, 10)) % 20
    order = np.argsort(-label_margins(embeddings, labels).margins)
    assert set(order[:10]) == set(wrong)


def test_one_label_is_refused():
    with pytest.raises(ValueError, match="two labels or more"):
        label_margins(np.eye(3), np.zeros(3, int))
