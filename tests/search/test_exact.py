"""The exact search against the definition, also where rounding hides who is nearer."""

import numpy as np
import pytest

from deeprank_jax.search import exact


def search(queries, gallery, k, num_parts=3):
    parts = np.array_split(gallery, num_parts)
    found = exact.ExactSearch(parts, len(gallery), gallery.shape[1])
    return found.search(queries, k)


def reference(queries, gallery, k):
    """The definition: measure everything, sort by distance and then by row."""
    wide, distances, rows = gallery.astype(np.float64), [], []
    for query in queries:
        measured = np.sum(np.square(query - wide), axis=1)
        rows.append(np.argsort(measured, kind="stable")[:k])
        distances.append(measured[rows[-1]])
    return np.array(distances), np.array(rows)


@pytest.fixture
def counted(monkeypatch):
    """How many queries were measured against everything."""
    counts = []
    direct = exact.ExactSearch._search_directly

    def counting(self, queries, k):
        counts.append(len(queries))
        return direct(self, queries, k)

    monkeypatch.setattr(exact.ExactSearch, "_search_directly", counting)
    return counts


@pytest.mark.parametrize("num_rows", [1, 40, 511, 4096, 4097, 9000])
@pytest.mark.parametrize("k", [1, 10])
def test_matches_the_definition_with_many_ties(num_rows, k):
    rng = np.random.default_rng(num_rows)
    gallery = rng.integers(0, 4, (num_rows, 6)).astype(np.float32)
    queries = rng.integers(0, 4, (11, 6)).astype(np.float32)
    k = min(k, num_rows)
    expected = reference(queries, gallery, k)
    distances, rows = search(queries, gallery, k)
    np.testing.assert_array_equal(rows, expected[1])
    np.testing.assert_array_equal(distances, expected[0])
    assert distances.dtype == np.float32


def test_few_rows_are_measured_where_no_doubt_is_left(counted):
    rng = np.random.default_rng(0)
    gallery = rng.normal(size=(9000, 32)).astype(np.float32)
    queries = rng.normal(size=(300, 32)).astype(np.float32)
    expected = reference(queries, gallery, 7)
    distances, rows = search(queries, gallery, 7)
    np.testing.assert_array_equal(rows, expected[1])
    np.testing.assert_allclose(distances, expected[0], rtol=1e-5)
    assert not counted


def test_more_equal_rows_than_are_measured_rank_in_gallery_order(counted):
    rng = np.random.default_rng(0)
    gallery = rng.normal(size=(9000, 8)).astype(np.float32)
    gallery[::9] = gallery[0]
    distances, rows = search(gallery[:1], gallery, 5)
    np.testing.assert_array_equal(rows, [[0, 9, 18, 27, 36]])
    np.testing.assert_array_equal(distances, 0.0)
    assert counted == [1]


def test_one_long_row_leaves_no_doubt_of_the_others(counted):
    rng = np.random.default_rng(0)
    gallery = rng.normal(size=(9000, 16)).astype(np.float32)
    gallery[77] = 1e6
    _, expected = reference(gallery[:20], gallery, 5)
    _, rows = search(gallery[:20], gallery, 5)
    np.testing.assert_array_equal(rows, expected)
    assert not counted


@pytest.mark.parametrize("offset", [0.0, 100.0, 1e4])
def test_far_from_the_origin_nothing_is_rounded_away(offset, counted):
    """A squared norm of 1e8 leaves float32 no digits for a gap of 1."""
    rng = np.random.default_rng(0)
    gallery = offset + rng.integers(-99, 99, (9000, 8)).astype(np.float32) / 16
    expected = reference(gallery[:20], gallery, 5)
    distances, rows = search(gallery[:20], gallery, 5)
    np.testing.assert_array_equal(rows, expected[1])
    np.testing.assert_array_equal(distances, expected[0])
    assert sum(counted) <= 1


def test_two_far_groups_are_told_apart(counted):
    """Both are far from their middle: products alone would get one in four wrong."""
    rng = np.random.default_rng(0)
    gallery = rng.integers(-99, 99, (9000, 8)).astype(np.float32) / 16
    gallery += np.where(np.arange(9000) % 2, 3e3, -3e3)[:, None].astype(np.float32)
    expected = reference(gallery[:200], gallery, 5)
    distances, rows = search(gallery[:200], gallery, 5)
    np.testing.assert_array_equal(rows, expected[1])
    np.testing.assert_array_equal(distances, expected[0])
    assert counted == [200]


@pytest.mark.parametrize("k", [60, 600, 1500])
def test_many_neighbours(k):
    rng = np.random.default_rng(1)
    gallery = rng.integers(0, 9, (1500, 4)).astype(np.float32)
    expected = reference(gallery[:5], gallery, k)
    distances, rows = search(gallery[:5], gallery, k)
    np.testing.assert_array_equal(rows, expected[1])
    np.testing.assert_array_equal(distances, expected[0])


def test_many_neighbours_without_ties_are_certain(counted):
    """Rows are sifted by one product, and none but the chosen is measured."""
    rng = np.random.default_rng(2)
    gallery = rng.normal(size=(9000, 16)).astype(np.float32)
    assert not exact.ExactSearch([gallery], *gallery.shape)._plan(200)[0]
    expected = reference(gallery[:20], gallery, 200)
    distances, rows = search(gallery[:20], gallery, 200)
    np.testing.assert_array_equal(rows, expected[1])
    np.testing.assert_allclose(distances, expected[0], rtol=1e-5, atol=1e-6)
    assert not counted


def test_memory_of_one_go_is_bounded():
    """Chunks to be measured are gathered for so many queries only."""
    found = exact.ExactSearch([np.zeros((65536, 64), np.float32)], 65536, 64)
    taken = set()
    for k in (1, 10, 100, 1000, 10_000):
        by_chunks, num = found._plan(k)
        taken.add(by_chunks)
        values = (k + exact._SPARE) * exact._CHUNK * 64 if by_chunks else 65536
        assert num == 1 or num * values <= exact._BLOCK_VALUES
        assert num & (num - 1) == 0
    assert taken == {True, False}


def test_long_vectors_are_seldom_measured_against_everything(counted):
    """The bound on rounding grows with their length, beyond the gaps between rows."""
    rng = np.random.default_rng(0)
    gallery = rng.random((600, 20_000)).astype(np.float32)
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    found = exact.ExactSearch([gallery], *gallery.shape)
    doubtful = []
    again = found._search_again

    def counting(queries, k):
        doubtful.append(len(queries))
        return again(queries, k)

    found._search_again = counting
    expected = reference(gallery[:30], gallery, 5)
    distances, rows = found.search(gallery[:30], 5)
    np.testing.assert_array_equal(rows, expected[1])
    np.testing.assert_allclose(distances, expected[0], rtol=1e-3, atol=1e-6)
    assert sum(counted) < sum(doubtful) / 4
    assert sum(doubtful) > 20
