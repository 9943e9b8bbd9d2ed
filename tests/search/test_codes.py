"""Binary codes: their bits, the law of random hyperplanes, and exact search."""

import numpy as np
import pytest

from deeprank_jax.search import codes

ENCODERS = {
    "hyperplanes": lambda rows: codes.fit_hyperplanes(rows, 20),
    "itq": lambda rows: codes.fit_itq(rows, 12),
    "signs": codes.fit_signs,
}


def embeddings(size=400, dim=16, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(size, dim)) + rng.normal(size=dim)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def bits_of(encoder, rows):
    """Returns the bits as [N, B] bool, number by number."""
    packed, num = encoder(rows), encoder.matrix.shape[1]
    return np.unpackbits(packed, axis=1, count=num).astype(bool)


@pytest.mark.parametrize("name", ENCODERS)
def test_a_bit_tells_the_side_of_a_plane(name):
    rows = embeddings()
    encoder = ENCODERS[name](rows)
    bits = bits_of(encoder, rows)
    for i in (0, 7, 399):
        for j, plane in enumerate(encoder.matrix.T):
            side = float(rows[i].astype(np.float32) @ plane) - encoder.thresholds[j]
            if abs(side) > 1e-5:
                assert bits[i, j] == (side > 0)
    # No bit is dead.
    assert np.all(np.abs(bits.mean(axis=0) - 0.5) < 0.15)


def test_hyperplanes_and_signs_halve_the_rows():
    rows = embeddings()
    for name in ("hyperplanes", "signs"):
        shares = bits_of(ENCODERS[name](rows), rows).mean(axis=0)
        np.testing.assert_allclose(shares, 0.5, atol=0.01)


def test_random_hyperplanes_measure_the_angle():
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(2000, 8))
    rows = np.concatenate([rows, -rows])  # Centred, so that planes pass by the origin.
    encoder = codes.fit_hyperplanes(rows, 20_000)
    a, b = rows[0], rows[1]
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    bits = bits_of(encoder, np.stack([a, b]))
    share = np.mean(bits[0] != bits[1])
    assert share == pytest.approx(np.arccos(cosine) / np.pi, abs=0.015)


def test_itq_is_a_rotation_that_lowers_the_error():
    rows = embeddings()
    centred = rows - rows.mean(axis=0)

    def error(encoder):
        mapped = centred @ encoder.matrix.astype(np.float64)
        return np.mean((mapped - np.where(mapped > 0, 1, -1)) ** 2)

    first, last = (codes.fit_itq(rows, 16, iterations=n) for n in (0, 50))
    assert error(last) < error(first)
    for encoder in (first, last):
        product = encoder.matrix.T @ encoder.matrix
        np.testing.assert_allclose(product, np.eye(16), atol=1e-5)
    np.testing.assert_array_equal(last.matrix, codes.fit_itq(rows, 16).matrix)


@pytest.mark.parametrize("num_bits", [0, 17])
def test_itq_has_no_more_bits_than_numbers(num_bits):
    with pytest.raises(ValueError, match="num_bits must be from 1 to 16"):
        codes.fit_itq(embeddings(), num_bits)


@pytest.mark.parametrize("num_bytes", [1, 7, 8, 17, 40])
@pytest.mark.parametrize("exclude_self", [False, True])
@pytest.mark.parametrize("has_faiss", [True, False])
def test_neighbors_are_those_of_every_pair(
    monkeypatch, num_bytes, exclude_self, has_faiss
):
    if not has_faiss:
        monkeypatch.setattr(codes, "_has_faiss", lambda: False)
    rng = np.random.default_rng(2)
    gallery = rng.integers(0, 4, (40, num_bytes)).astype(np.uint8)
    queries = gallery if exclude_self else gallery[::3] ^ 1
    distances, rows = codes.hamming_neighbors(
        queries, gallery, 9, exclude_self=exclude_self
    )
    for i, query in enumerate(queries):
        differing = np.unpackbits(query ^ gallery, axis=1).sum(axis=1)
        order = np.argsort(differing, kind="stable")
        order = order[order != i] if exclude_self else order
        np.testing.assert_array_equal(rows[i], order[:9])
        np.testing.assert_array_equal(distances[i], differing[order[:9]])


def test_what_cannot_be_searched_is_refused():
    gallery = np.zeros((3, 2), np.uint8)
    with pytest.raises(ValueError, match="k must be from 1 to 2, got 3"):
        codes.hamming_neighbors(gallery, gallery, 3, exclude_self=True)
    with pytest.raises(ValueError, match="must come from the same encoder"):
        codes.hamming_neighbors(gallery[:, :1], gallery, 1)


@pytest.mark.parametrize("has_faiss", [True, False])
def test_more_than_255_bits_are_counted(monkeypatch, has_faiss):
    if not has_faiss:
        monkeypatch.setattr(codes, "_has_faiss", lambda: False)
    gallery = np.zeros((3, 40), np.uint8)
    gallery[1], gallery[2, :33] = 255, 255
    distances, rows = codes.hamming_neighbors(gallery[:1], gallery, 3)
    assert (rows[0].tolist(), distances[0].tolist()) == ([0, 2, 1], [0, 264, 320])


@pytest.mark.parametrize("num_bits", [8, 12])
def test_a_query_s_numbers_order_the_codes(num_bits):
    rows = embeddings(size=80)
    encoder = codes.fit_itq(rows, num_bits)
    packed = encoder(rows)
    _, nearest = codes.hamming_neighbors(packed[:9], packed, 30)
    numbers = encoder.numbers(rows[:9])
    reordered = codes.reorder_by_numbers(numbers, packed, nearest)
    bits = bits_of(encoder, rows)
    for i, candidates in enumerate(nearest):
        # As Python sorts, equal ones stay in their order.
        expected = sorted(
            candidates,
            key=lambda row, i=i: -np.where(bits[row], 1.0, -1.0) @ numbers[i],
        )
        assert reordered[i].tolist() == expected
    assert np.any(reordered != nearest)


def test_numbers_of_another_encoder_are_refused():
    packed = np.zeros((5, 1), np.uint8)
    with pytest.raises(ValueError, match="queries have 12 numbers and codes 8 bits"):
        codes.reorder_by_numbers(np.zeros((2, 12)), packed, np.zeros((2, 3), int))
