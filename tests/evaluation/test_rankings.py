"""Whole rankings, and hierarchical average precision, from their definitions."""

import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
from sklearn import metrics

from deeprank_jax.evaluation import HierarchicalAP, Retrieval, rankings
from deeprank_jax.evaluation.hierarchical import shared_gains
from deeprank_jax.relevance import Hierarchy, SameClass
from deeprank_jax.relevance.label_function import LabelFunction

GAINS = Hierarchy((0.1, 0.4, 1.0))
# As many values as pairs of labels, and not symmetric.
UNEQUAL = LabelFunction(
    lambda a, b: 1.0 / (1.0 + (3 * a[..., -1] - 2 * b[..., -1]) ** 2)
)


def random_attributes(seed, num_records=40):
    classes = np.random.default_rng(seed).integers(0, 16, num_records)
    return np.stack([classes // 8, classes // 3, classes], axis=1)


def ranked_others(q, queries, gallery):
    """All others by distance, and of equals the earlier first."""
    others = [j for j in range(len(gallery)) if j != q]
    far = {j: float(np.sum((queries[q] - gallery[j]) ** 2)) for j in others}
    return sorted(others, key=lambda j: (far[j], j))


def reference(attributes, relevance, queries, gallery):
    """H-AP of every query by its definition; None where nothing is relevant."""
    found = []
    for q in range(len(gallery)):
        ranked = ranked_others(q, queries, gallery)
        gains = [
            float(relevance.pairwise(attributes[q], attributes[j])) for j in ranked
        ]
        total = 0.0
        for k, gain in enumerate(gains):
            total += sum(min(gain, other) for other in gains[: k + 1]) / (k + 1)
        found.append(total / sum(gains) if sum(gains) else None)
    return found


@pytest.mark.parametrize("relevance", [GAINS, SameClass(), UNEQUAL])
@pytest.mark.parametrize("asymmetric", [False, True])
@pytest.mark.parametrize("largest", [2, 1000], ids=["ties", "no_ties"])
def test_hierarchical_ap_is_its_definition(largest, asymmetric, relevance, monkeypatch):
    monkeypatch.setattr(rankings, "_BLOCK_VALUES", 7 * 40)  # Several blocks.
    rng = np.random.default_rng(0)
    attributes = random_attributes(0)
    gallery = rng.integers(0, largest, (40, 3)).astype(np.float32)
    queries = rng.integers(0, largest, (40, 3)).astype(np.float32)
    queries = queries if asymmetric else gallery
    expected = reference(attributes, relevance, queries, gallery)
    found = HierarchicalAP(attributes, relevance).measure(
        gallery, queries=queries if asymmetric else None
    )
    counts = np.array([x is not None for x in expected])
    assert 0 < np.mean([x for x in expected if x is not None]) < 1
    np.testing.assert_array_equal(found["h_ap"].counts, counts)
    values = [0.0 if x is None else x for x in expected]
    np.testing.assert_allclose(found["h_ap"].values, values, atol=1e-12)
    assert found["num_queries"].value == counts.sum()


def test_of_relevance_0_and_1_it_is_average_precision():
    """Of scikit-learn, on distances without ties."""
    attributes = random_attributes(1)
    embeddings = np.random.default_rng(1).normal(size=(40, 3)).astype(np.float32)
    found = HierarchicalAP(attributes, SameClass()).measure(embeddings)["h_ap"]
    for q in np.flatnonzero(found.counts):
        others = np.arange(40) != q
        nearness = -np.sum((embeddings[q] - embeddings[others]) ** 2, axis=1)
        hits = attributes[others, -1] == attributes[q, -1]
        expected = metrics.average_precision_score(hits, nearness)
        assert found.values[q] == pytest.approx(expected)
    assert 1 < found.counts.sum() < 40


def test_a_ranking_by_relevance_is_perfect_and_its_reverse_is_not():
    attributes = np.arange(9)[:, None]
    relevance = LabelFunction(lambda a, b: 10.0 - abs(a[..., 0] - b[..., 0]))
    line = np.arange(9.0)[:, None]
    best = dict(HierarchicalAP(attributes, relevance).run(line))
    assert best["h_ap"] == pytest.approx(1.0)
    # Rolled up, so that the farther ends meet.
    angle = 3.0 * line / 4.0
    circle = np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
    assert 0.5 < dict(HierarchicalAP(attributes, relevance).run(circle))["h_ap"] < 0.99


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**16), st.integers(1, 40))
def test_shared_gains_are_their_definition(seed, num):
    rng = np.random.default_rng(seed)
    gains = np.round(rng.random((3, num)), 1) * rng.integers(0, 2, (3, num))
    expected = np.minimum(gains[:, :, None], gains[:, None]) * np.tri(num)
    np.testing.assert_allclose(shared_gains(gains), expected.sum(axis=2), atol=1e-12)


@pytest.mark.parametrize("classes", [[], [0], [0, 1, 2], [0, 0], [5] * 6])
def test_degenerate_splits_have_defined_numbers(classes):
    attributes = np.array(classes, int).reshape(-1, 1)
    embeddings = np.arange(len(classes), dtype=np.float32)[:, None] ** 2
    found = dict(HierarchicalAP(attributes, SameClass()).run(embeddings))
    has_relevant = len(classes) > 1 and len(set(classes)) == 1
    assert found["h_ap"] == pytest.approx(float(has_relevant))
    assert found["num_queries"] == len(classes) * has_relevant


def test_a_masked_record_takes_part_in_nothing():
    attributes = random_attributes(2)
    rng = np.random.default_rng(2)
    embeddings, where = rng.normal(size=(40, 4)), rng.random(40) < 0.7
    embeddings[~where] = np.nan
    masked = HierarchicalAP(attributes, GAINS).measure(embeddings, where)["h_ap"]
    subset = HierarchicalAP(attributes[where], GAINS).measure(embeddings[where])["h_ap"]
    np.testing.assert_array_equal(masked.values[where], subset.values)
    assert masked.value == subset.value
    assert 0 < np.count_nonzero(~masked.counts) == np.count_nonzero(~where)


@pytest.mark.parametrize("value", [-1.0, np.nan])
def test_a_relevance_that_cannot_be_is_refused(value):
    relevance = LabelFunction(lambda a, b: value * (a[..., 0] == b[..., 0]))
    with pytest.raises(ValueError, match="negative or not finite"):
        dict(HierarchicalAP(np.zeros((3, 1), int), relevance).run(np.eye(3)))


def test_rows_that_are_not_finite_are_refused():
    evaluator = HierarchicalAP(np.zeros((3, 1), int), SameClass())
    with pytest.raises(ValueError, match=r"not finite.* row 2"):
        dict(evaluator.run(np.array([[1.0], [2.0], [np.nan]])))


@pytest.mark.parametrize("largest", [2, 1000], ids=["ties", "no_ties"])
def test_first_ranks_are_their_definition(largest, monkeypatch):
    monkeypatch.setattr(rankings, "_BLOCK_VALUES", 7 * 40)
    rng = np.random.default_rng(3)
    classes = np.repeat(np.arange(20), 2)
    queries, gallery = rng.integers(0, largest, (2, 40, 3)).astype(np.float32)
    rows = rng.permutation(40)[:30]
    expected = [
        1 + [classes[j] for j in ranked_others(q, queries, gallery)].index(classes[q])
        for q in rows
    ]
    assert max(expected) > 10 > min(expected)
    found = rankings.first_ranks(queries, gallery, classes, rows)
    np.testing.assert_array_equal(found, expected)
    assert len(rankings.first_ranks(queries, gallery, classes, rows[:0])) == 0


def test_equal_rows_are_equally_far():
    """Wherever in the gallery they lie, and however large it is."""
    rng = np.random.default_rng(4)
    rows = (1000.0 + rng.normal(size=(7, 33))).astype(np.float32)
    at = rng.integers(0, 7, 1001)
    ((_, distances),) = rankings.distance_blocks(rows[at], rows[at], np.arange(40))
    for row in distances:
        assert len(np.unique(row[np.isfinite(row)])) == 7
    expected = np.square(rows[at[:40], None].astype(float) - rows[at]).sum(axis=2)
    expected[np.arange(40), np.arange(40)] = np.inf
    np.testing.assert_allclose(distances, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("codes", [(0, 1), (-1, 1), (-0.1, 0.1), (0, 3, 7)])
def test_codes_of_a_few_bits_rank_with_their_ties(codes):
    rng = np.random.default_rng(14)
    rows = rng.choice(np.array(codes, np.float32), (60, 16))
    far = np.square(rows[:, None].astype(np.float64) - rows).sum(axis=2)
    np.fill_diagonal(far, np.inf)
    order = np.argsort(far, axis=1, kind="stable")
    assert np.any(np.diff(np.sort(far, axis=1)[:, :5]) == 0)
    classes = np.repeat(np.arange(20), 3)
    expected = 1 + (classes[order] == classes[:, None]).argmax(axis=1)
    found = rankings.first_ranks(rows, rows, classes, np.arange(60))
    np.testing.assert_array_equal(found, expected)
    measured = Retrieval(classes[:, None], SameClass(), ks=(1,)).measure(rows)
    np.testing.assert_allclose(measured["mrr"].values, 1 / expected)
    np.testing.assert_array_equal(measured["recall@1"].values, expected == 1)


def test_memory_is_that_of_a_block(monkeypatch):
    """Of 3,000 queries, 9 million distances are 72 MB."""
    monkeypatch.setattr(rankings, "_BLOCK_VALUES", 2**17)
    rng = np.random.default_rng(0)
    classes, rows = np.repeat(np.arange(1500), 2), np.arange(3000)
    embeddings = rng.normal(size=(3000, 4)).astype(np.float32)
    tracemalloc.start()
    rankings.first_ranks(embeddings, embeddings, classes, rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**23
