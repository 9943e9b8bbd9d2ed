"""The cosine less the resemblance to distractors, by hand."""

import numpy as np
import pytest

from deeprank_jax import similarities
from deeprank_jax.errors import ConfigError, DataError
from deeprank_jax.similarities import out_of_domain


def create_rows(seed, size=30, dim=6):
    return np.random.default_rng(seed).normal(size=(size, dim))


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def create(distractors, **options):
    similarity = similarities.create_learned("out_of_domain", options)
    assert similarities.train(similarity, distractors, np.array([])) == {}
    return similarity


@pytest.mark.parametrize("block", [2**24, 7])
def test_it_is_the_formula(monkeypatch, block):
    monkeypatch.setattr(out_of_domain, "_BLOCK", block)
    distractors, a, b = (create_rows(seed) for seed in range(3))
    options = dict(num_query=3, num_indexed=2, query_weight=0.7, indexed_weight=0.2)
    scores = create(9 * distractors, **options)(5 * a, b)
    for x, y, score in zip(unit(a), unit(b), scores, strict=True):
        of_query, of_indexed = (
            sorted(unit(distractors) @ z)[-num:] for z, num in ((x, 3), (y, 2))
        )
        expected = max(x @ y, 0) - 0.7 * np.mean(of_query) - 0.2 * np.mean(of_indexed)
        assert score == pytest.approx(expected, abs=1e-6)
    assert np.ptp(scores) > 0.5


def test_without_weights_it_is_the_cosine_above_0():
    a, b = create_rows(1), create_rows(2)
    similarity = create(create_rows(0), query_weight=0, indexed_weight=0)
    cosines = np.sum(unit(a) * unit(b), axis=1)
    assert cosines.min() < 0
    np.testing.assert_allclose(similarity(a, b), np.maximum(cosines, 0), atol=1e-12)


def test_a_query_like_the_distractors_is_sure_of_nothing():
    rng = np.random.default_rng(0)
    distractors = np.eye(6)[0] + 0.2 * rng.normal(size=(40, 6))
    similarity = create(distractors)
    near, far = np.eye(6)[[0]], np.eye(6)[[3]]
    assert similarity(near, near)[0] < similarity(far, far)[0] - 0.5


def test_it_is_as_before_after_it_is_restored():
    similarity = create(create_rows(0))
    restored = similarities.create_learned("out_of_domain")
    restored.restore(similarity.arrays(), 6)
    a, b = create_rows(1), create_rows(2)
    np.testing.assert_array_equal(restored(a, b), similarity(a, b))
    assert restored.describe() == "cosine less the resemblance to 30 distractors"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[:, :5], "not \\[M, 6\\]"),
        (lambda x: x[:9], "not \\[M, 6\\]"),
        (lambda x: x.astype(np.float64), "finite float32"),
        (lambda x: np.where(x == x[3, 3], np.nan, x), "finite float32"),
    ],
)
def test_other_arrays_are_refused(change, message):
    rows = create(create_rows(0)).arrays()["distractors"]
    with pytest.raises(ValueError, match=message):
        similarities.create_learned("out_of_domain").restore(
            {"distractors": change(rows)}, 6
        )
    with pytest.raises(ValueError, match="not distractors"):
        similarities.create_learned("out_of_domain").restore({"rows": rows}, 6)


def test_too_few_distractors_are_named():
    similarity = similarities.create_learned("out_of_domain")
    with pytest.raises(DataError, match="9 distractors are fewer than the 10"):
        similarities.train(similarity, create_rows(0, size=9), np.array([]))
    with pytest.raises(DataError, match="out_of_domain has no distractors"):
        similarity(create_rows(1), create_rows(2))


@pytest.mark.parametrize(
    ("option", "value"),
    [("num_query", 0), ("num_indexed", 0), ("query_weight", -0.1),
     ("indexed_weight", float("inf"))],
)  # fmt: skip
def test_an_option_out_of_range_is_named(option, value):
    with pytest.raises(ConfigError, match=f"{option} must be at least"):
        similarities.create_learned("out_of_domain", {option: value})
