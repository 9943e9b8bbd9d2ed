"""Arcs between classes against a search of the sphere, point by point."""

import numpy as np
import pytest

from deeprank_jax.search import between


def unit(rows):
    rows = np.asarray(rows, np.float64)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def nearest_on_arc(first, second, target):
    """Returns the largest cosine on an arc, and the share of the way to it."""
    shares = np.linspace(0, 1, 20_001)[:, None]
    points = unit((1 - shares) * first + shares * second)
    cosines = points @ target
    return cosines.max(), shares[cosines.argmax(), 0]


def test_a_class_on_the_arc_is_between_its_ends():
    directions = unit([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 2, 0]])
    (arc,) = between.find_arcs(directions, 3, 1)
    assert arc.ends == (1, 0)
    assert arc.off_arc == pytest.approx(0, abs=1e-5)
    assert arc.arc_angle == pytest.approx(90)
    assert arc.end_angles == pytest.approx(
        (np.degrees(np.arctan(0.5)), 63.4349), rel=1e-4
    )
    assert sum(arc.end_angles) == pytest.approx(arc.arc_angle)


@pytest.mark.parametrize("seed", range(5))
def test_the_best_arcs_are_those_of_a_search(seed):
    directions = unit(np.random.default_rng(seed).normal(size=(9, 4)))
    expected = []
    for i in range(1, 9):
        for j in range(i + 1, 9):
            cosine, share = nearest_on_arc(directions[i], directions[j], directions[0])
            if 1e-3 < share < 1 - 1e-3:
                expected.append((cosine, {i, j}))
    expected.sort(key=lambda x: -x[0])
    arcs = between.find_arcs(directions, 0, 100)
    assert len(arcs) == len(expected)
    for arc, (cosine, ends) in zip(arcs, expected, strict=True):
        assert set(arc.ends) == ends
        assert arc.cosine == pytest.approx(cosine, abs=1e-6)
        assert arc.end_cosines[0] >= arc.end_cosines[1]
        assert arc.cosine >= arc.end_cosines[0]
    assert between.find_arcs(directions, 0, 3) == arcs[:3]


def test_a_class_beyond_an_end_is_not_between():
    directions = unit([[1, 0, 0], [1, 1, 0], [1, -1, 0.1]])
    assert between.place_on_arc(directions, 2, (0, 1)) is None
    assert between.place_on_arc(directions, 0, (2, 1)).ends == (1, 2)


def test_two_classes_in_one_direction_have_no_arc():
    directions = unit([[1, 0.2], [1, 0], [1, 0]])
    assert between.find_arcs(directions, 0, 5) == []


def test_directions_are_those_of_the_means():
    rows = unit(np.random.default_rng(0).normal(size=(10, 3)) + 1)
    labels = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 2])
    expected = unit([rows[labels == label].mean(axis=0) for label in range(3)])
    np.testing.assert_allclose(between.class_directions(rows, labels), expected)
    with pytest.raises(ValueError, match="mean of a class is zero"):
        between.class_directions(np.array([[1.0, 0], [-1, 0]]), np.zeros(2, int))
