import math

from hypothesis import given, settings, strategies
import numpy as np
import pytest

from deeprank_jax import similarities
from deeprank_jax.errors import DataError

DISTANCES = ["squared_euclidean", "euclidean", "cosine", "angle"]


def create_rows(num=40, dim=5, seed=0):
    rng = np.random.default_rng(seed)
    return 3 * rng.normal(size=(2, num, dim))


def by_loop(name, a, b):
    """The formula of each docstring, number by number."""
    distances = []
    for x, y in zip(a.tolist(), b.tolist(), strict=True):
        square = sum((p - q) ** 2 for p, q in zip(x, y, strict=True))
        inner = sum(p * q for p, q in zip(x, y, strict=True))
        cosine = inner / math.sqrt(sum(p * p for p in x) * sum(q * q for q in y))
        distances.append(
            {
                "squared_euclidean": square,
                "euclidean": math.sqrt(square),
                "cosine": 1 - cosine,
                "angle": math.acos(cosine),
            }[name]
        )
    return distances


@pytest.mark.parametrize("name", DISTANCES)
def test_a_distance_is_its_formula(name):
    a, b = create_rows()
    distances = similarities.create_similarity(name)(a, b)
    assert distances.dtype == np.float64
    assert np.ptp(distances) > 0.5
    np.testing.assert_allclose(distances, by_loop(name, a, b), rtol=1e-12)


@pytest.mark.parametrize("name", DISTANCES)
def test_it_is_a_distance_that_is_not_trained(name):
    similarity = similarities.create_similarity(name)
    assert similarity.is_distance
    assert name in similarities.fixed_names()
    assert name not in similarities.learned_names()
    assert not isinstance(similarity, similarities.LearnedSimilarity)


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_an_angle_is_exact_where_the_cosine_rounds_to_1(scale):
    step = 1e-9
    a = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]]) * scale
    b = np.array([[1.0, step], [-1.0, 0.0], [1.0, 0.0]]) * scale
    assert 1.0 / math.hypot(1.0, step) == 1.0
    angles = similarities.Angle()(a, b)
    np.testing.assert_allclose(angles, [step, math.pi, 0.0], rtol=1e-12)


def test_a_vector_of_zeros_has_an_angle():
    a, b = np.zeros((2, 3)), np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(similarities.Angle()(a, b), [math.pi / 2, 0.0])
    np.testing.assert_array_equal(similarities.CosineDistance()(a, b), [0.5, 0.0])


@settings(max_examples=50, deadline=None)
@given(
    strategies.lists(
        strategies.lists(
            strategies.floats(-100, 100, allow_subnormal=False), min_size=3, max_size=3
        ),
        min_size=3,
        max_size=3,
    )
)
def test_what_is_called_a_metric_is_one(points):
    a, b, c = np.array(points)[:, None]
    for name in DISTANCES:
        distance = similarities.create_similarity(name)
        assert distance(a, a) == 0
        assert distance(a, b) == distance(b, a) >= 0
    assert similarities.Euclidean()(a, c) <= (
        similarities.Euclidean()(a, b) + similarities.Euclidean()(b, c) + 1e-9
    )
    if np.abs(points).max(axis=1).min() > 0:
        angle = similarities.Angle()
        assert angle(a, c) <= angle(a, b) + angle(b, c) + 1e-9


@pytest.mark.parametrize("name", ["squared_euclidean", "cosine"])
def test_the_others_break_the_triangle(name):
    a, b, c = (
        np.array([[math.cos(t), math.sin(t)]]) for t in (0, math.pi / 4, math.pi / 2)
    )
    distance = similarities.create_similarity(name)
    assert distance(a, c) > distance(a, b) + distance(b, c) + 0.1


@pytest.mark.parametrize("name", DISTANCES)
def test_pairs_that_do_not_fit_are_refused(name):
    distance = similarities.create_similarity(name)
    a, b = create_rows()
    with pytest.raises(DataError, match=r"a is \[40, 5\] and b is \[40, 4\]: give"):
        distance(a, b[:, :4])
    with pytest.raises(DataError, match=r"b must be \[N, D\], got \[5\]"):
        distance(a, b[0])
    b[7, 1] = np.nan
    with pytest.raises(
        DataError, match="1 of 40 embeddings of b are not finite, the f"
    ):
        distance(a, b)
