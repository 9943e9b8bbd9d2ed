import numpy as np
import pytest
import scipy.stats

from deeprank_jax import similarities
from deeprank_jax.errors import DataError
from deeprank_jax.similarities.pairs import LabelledPairs, draw_unit_pairs


@pytest.mark.parametrize("dim", [2, 3, 512])
def test_unit_pairs_have_uniform_cosines(dim):
    a, b, cosines = draw_unit_pairs(np.random.default_rng(0), 2000, dim)
    for side in (a, b):
        np.testing.assert_allclose(np.linalg.norm(side, axis=1), 1.0, atol=1e-6)
        # No direction is preferred.
        assert np.abs(side.mean(axis=0)).max() < 5 / np.sqrt(2000 * dim)
    measured = np.sum(a.astype(np.float64) * b, axis=1)
    np.testing.assert_allclose(measured, cosines, atol=1e-6)
    law = scipy.stats.uniform(-1, 2)
    assert scipy.stats.kstest(measured, law.cdf).pvalue > 0.01


def test_random_vectors_alone_would_be_nearly_orthogonal():
    a, b = np.random.default_rng(0).standard_normal((2, 500, 512))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    assert np.abs(np.sum(a * b, axis=1) / norms).max() < 0.2


LABELS = np.array(["cat", "dog", "", "cat", "owl", "dog", "cat", ""])


@pytest.mark.parametrize(
    "labels", [LABELS, np.array([0, 1, -1, 0, 2, 1, 0, -1])], ids=["texts", "ints"]
)
def test_pairs_are_uniform_over_what_may_be_drawn(labels):
    pairs, is_similar = LabelledPairs(labels).draw(np.random.default_rng(0), 9001)
    assert is_similar.sum() == 4501
    same = labels[pairs[:, 0]] == labels[pairs[:, 1]]
    np.testing.assert_array_equal(same, is_similar)
    assert (pairs[:, 0] != pairs[:, 1]).all()
    # By class: 3 cats, 2 dogs, and an owl that is nobody's anchor.
    anchors, rest = (0, 3, 6, 1, 5), {0, 3, 6, 1, 5, 4}
    for kind in (True, False):
        drawn = [tuple(pair) for pair in pairs[is_similar == kind].tolist()]
        law = {}
        for anchor in anchors:
            others = [
                x for x in rest if x != anchor and (LABELS[x] == LABELS[anchor]) == kind
            ]
            law.update({(anchor, x): 1 / (5 * len(others)) for x in others})
        assert {*drawn} == {*law}
        counts = [drawn.count(pair) for pair in law]
        expected = np.array([*law.values()]) * len(drawn)
        assert scipy.stats.chisquare(counts, expected).pvalue > 0.001


def test_the_same_seed_draws_the_same():
    draw = lambda seed: LabelledPairs(LABELS).draw(np.random.default_rng(seed), 50)[0]
    np.testing.assert_array_equal(draw(1), draw(1))
    assert (draw(1) != draw(2)).any()


@pytest.mark.parametrize(("num", "num_similar"), [(2, 1), (7, 4), (300, 4)])
def test_distinct_pairs_are_in_no_order_twice(num, num_similar):
    """All there are, of a kind that has fewer: 3 cats and 2 dogs make 4 pairs."""
    drawn = LabelledPairs(LABELS).draw_distinct(np.random.default_rng(0), num)
    pairs, is_similar = drawn
    assert len({frozenset(pair) for pair in pairs.tolist()}) == len(pairs)
    assert is_similar.sum() == num_similar
    assert len(pairs) == min(num, 4 + 11)
    same = LABELS[pairs[:, 0]] == LABELS[pairs[:, 1]]
    np.testing.assert_array_equal(same, is_similar)
    assert "" not in LABELS[pairs]
    if num > 2:  # The kinds are mixed.
        assert len({*is_similar[:3], *is_similar[-3:]}) == 2


def test_distinct_pairs_begin_with_either_image():
    labels = np.arange(200) % 5
    pairs, is_similar = LabelledPairs(labels).draw_distinct(
        np.random.default_rng(0), 600
    )
    is_lower_first = pairs[:, 0] < pairs[:, 1]
    for kind in (True, False):
        # Six deviations of a share.
        share = is_lower_first[is_similar == kind].mean()
        assert abs(share - 0.5) < 6 * 0.5 / 300**0.5


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["", "", ""], "None of the 3 images has a label.*one folder per class"),
        ([-1, -1], "None of the 2 images has a label"),
        (
            ["cat", "", "cat"],
            "All 2 images with a label are of one class.*at least two",
        ),
        ([0, 1, 2, -1], "Each of the 3 classes has one image.*at least two images"),
    ],
)
def test_labels_without_pairs_are_refused(labels, message):
    with pytest.raises(DataError, match=message):
        LabelledPairs(np.array(labels))


@pytest.mark.parametrize("kind", ["linear", "bilinear"])
@pytest.mark.parametrize("num_labels", [5, 7])
def test_as_many_labels_as_embeddings(kind, num_labels):
    similarity = similarities.create_learned(kind)
    with pytest.raises(DataError, match=f"6 embeddings and {num_labels} labels"):
        similarities.train(similarity, np.eye(6), np.arange(num_labels) % 2)
