from hypothesis import given, settings
from hypothesis import strategies as st
import jax
import numpy as np
import pytest

from deeprank_jax.evaluation import average_precision
from deeprank_jax.search import exact, neighbors


def reference(queries, gallery, k, exclude_self):
    """The definition: measure, sort by distance and then by row, one at a time."""
    distances, indices = [], []
    for i, query in enumerate(queries.astype(np.float64)):
        ranked = sorted(
            (float(np.sum((query - row) ** 2)), j)
            for j, row in enumerate(gallery.astype(np.float64))
            if not (exclude_self and i == j)
        )[:k]
        distances.append([d for d, _ in ranked])
        indices.append([j for _, j in ranked])
    return np.array(distances), np.array(indices)


@pytest.mark.parametrize("exclude_self", [False, True])
@pytest.mark.parametrize("k", [1, 5, 39, 40])
def test_matches_the_definition_with_many_ties(k, exclude_self):
    rng = np.random.default_rng(0)
    gallery = rng.integers(0, 3, (41, 3)).astype(np.float32)
    queries = gallery if exclude_self else rng.integers(0, 3, (23, 3))
    queries = np.asarray(queries, np.float32)
    expected = reference(queries, gallery, k, exclude_self)
    assert k == 1 or np.any(np.diff(expected[0]) == 0)  # There are ties to break.
    distances, indices = neighbors.nearest_neighbors(
        queries, gallery, k, exclude_self=exclude_self
    )
    np.testing.assert_array_equal(indices, expected[1])
    np.testing.assert_array_equal(distances, expected[0])
    assert distances.dtype == np.float32
    assert indices.dtype == np.int32


@pytest.mark.parametrize("exclude_self", [False, True])
def test_blocks_are_parts_of_the_whole(exclude_self, monkeypatch):
    x = np.random.default_rng(3).normal(size=(23, 3)).astype(np.float32)
    whole = neighbors.nearest_neighbors(x, x, 5, exclude_self=exclude_self)
    monkeypatch.setattr(exact, "_MAX_QUERIES", 8)
    blocks = list(neighbors.neighbor_blocks(x, x, 5, exclude_self=exclude_self))
    assert [part for part, _, _ in blocks] == [
        slice(0, 8),
        slice(8, 16),
        slice(16, 23),
    ]
    for part, distances, indices in blocks:
        np.testing.assert_array_equal(distances, whole[0][part])
        np.testing.assert_array_equal(indices, whole[1][part])
    with pytest.raises(ValueError, match="from 1 to 22"):
        neighbors.neighbor_blocks(x, x, 23, exclude_self=True)


def test_a_query_with_many_copies_leaves_itself_out():
    """Copies that come first crowd the query out of its own neighbours."""
    gallery = np.ones((30, 2), np.float32)
    _, indices = neighbors.nearest_neighbors(gallery, gallery, 4, exclude_self=True)
    np.testing.assert_array_equal(indices[0], [1, 2, 3, 4])
    np.testing.assert_array_equal(indices[2], [0, 1, 3, 4])
    np.testing.assert_array_equal(indices[29], [0, 1, 2, 3])


@pytest.mark.parametrize("num_rows", [700, 9000])
def test_devices_share_the_queries_and_change_nothing(num_rows, monkeypatch):
    monkeypatch.setattr(exact, "_MAX_QUERIES", 32)
    rng = np.random.default_rng(0)
    gallery = rng.normal(size=(num_rows, 16)).astype(np.float32)
    assert len(jax.devices()) == 4
    options = [dict(devices=jax.devices()[:n]) for n in (1, 3, 4)]
    found = [
        exact.ExactSearch([gallery], *gallery.shape, **option).search(gallery[:300], 6)
        for option in options
    ]
    for one, other in zip(found[:1] * 2, found[1:], strict=True):
        np.testing.assert_array_equal(one, other)


def test_equal_rows_rank_in_gallery_order_and_lie_at_zero():
    """Rounding must not separate copies of a row with many odd digits."""
    rng = np.random.default_rng(1)
    row = 100.0 + rng.normal(size=(1, 61)).astype(np.float32)
    gallery = np.repeat(np.concatenate([row, row + 1.0]), 6, axis=0)
    distances, indices = neighbors.nearest_neighbors(row, gallery, 8)
    np.testing.assert_array_equal(indices[0], np.arange(8))
    np.testing.assert_array_equal(distances[0, :6], 0.0)


def test_distances_far_from_the_origin_are_not_rounded_away():
    """A squared norm of 1e8 leaves float32 no digits for a gap of 1."""
    gallery = np.array([[1e4], [1e4 + 1.0], [1e4 + 3.0]], np.float32)
    distances, indices = neighbors.nearest_neighbors(gallery, gallery, 2)
    np.testing.assert_array_equal(indices, [[0, 1], [1, 0], [2, 1]])
    np.testing.assert_array_equal(distances, [[0, 1], [0, 1], [0, 4]])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16), st.floats(0.1, 10.0))
def test_rotation_and_scale_leave_the_ranking(seed, scale):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(12, 4)).astype(np.float32)
    rotation, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    moved = (scale * x @ rotation).astype(np.float32)
    distances, indices = neighbors.nearest_neighbors(x, x, 11, exclude_self=True)
    other, moved_indices = neighbors.nearest_neighbors(
        moved, moved, 11, exclude_self=True
    )
    np.testing.assert_allclose(other, scale**2 * distances, rtol=1e-3, atol=1e-5)
    apart = np.diff(distances, axis=1).min() > 1e-4  # Else rounding may swap two.
    assert not apart or np.array_equal(indices, moved_indices)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(k=0), "from 1 to 4"),
        (dict(k=5), "from 1 to 4"),
        (dict(gallery=np.ones((3, 2))), "5 queries and 3 gallery rows"),
        (dict(gallery=np.ones((5, 3))), "same model"),
        (dict(queries=np.array([[1.0, 2.0]] * 4 + [[0.0, np.nan]])), "row 4"),
        (dict(gallery=np.full((5, 2), np.inf)), "5 of 5 gallery are not finite"),
        (dict(gallery=np.ones((0, 2))), "at least one row"),
    ],
)
def test_bad_input_is_refused(change, message):
    arguments = dict(queries=np.ones((5, 2)), gallery=np.ones((5, 2)), k=1) | change
    with pytest.raises(ValueError, match=message):
        neighbors.nearest_neighbors(**arguments, exclude_self=True)


def test_average_precision_is_the_definition():
    rng = np.random.default_rng(2)
    hits = rng.random((30, 9)) < 0.4
    num_relevant = rng.integers(0, 10, 30)
    expected = []
    for row, relevant in zip(hits, num_relevant, strict=True):
        total = sum(row[: i + 1].mean() for i in range(relevant) if row[i])
        expected.append(total / relevant if relevant else 0.0)
    assert len(set(expected)) > 10
    np.testing.assert_allclose(
        average_precision.average_precision(hits, num_relevant), expected
    )
