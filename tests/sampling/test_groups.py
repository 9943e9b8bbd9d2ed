"""Groups of several positives and negatives: law, repeats and determinism."""

from helpers.samplers import create_sampler
import numpy as np
import pytest

from deeprank_jax import relevance
from deeprank_jax.sampling.reservoir.group_sampler import GroupSampler
from tools.benchmark.exact_laws import chi_square, enumerate_laws

GAP, OUTSIDE, NUM = 0.2, 0.3, 60_000


def labels_of(num=22):
    fine = np.random.default_rng(0).integers(0, 8, num)
    return np.stack([fine // 4, fine // 2, fine], axis=1).astype(np.int32)


def kind_of(name):
    """Returns a relevance that is drawn by rings, or by comparison."""
    hierarchy = relevance.Hierarchy((0.1, 0.4, 1.0))
    if name == "rings":
        return hierarchy

    class Compared:
        def pairwise(self, a, b):
            return hierarchy.pairwise(a, b)

        def total(self, attributes):
            block = self.pairwise(attributes[:, None], attributes[None])
            return block.sum(axis=1) - np.diagonal(block)

    return Compared()


def create_groups(attributes, kind, *, positives, negatives, **options):
    options = {"min_relevance_gap": GAP, "out_of_class": OUTSIDE, "seed": 1} | options
    return GroupSampler(
        create_sampler(attributes, kind, **options),
        positives_per_anchor=positives,
        negatives_per_anchor=negatives,
    )


def group_laws(attributes, kind):
    """Returns the laws of two positives, and of each of two negatives by anchor."""
    num = len(attributes)
    positives, inside, outside = enumerate_laws(
        attributes, attributes[:, 0], kind, cap=1.0, gap=GAP, out_of_class=OUTSIDE
    )
    pull = positives / positives.sum(axis=1, keepdims=True)
    push = (inside + outside) / np.maximum(positives, 1e-300)[..., None]
    both, negatives = np.zeros((num,) * 3), np.zeros((2, num, num))
    for a, first in np.argwhere(positives > 0):
        for second in np.flatnonzero(pull[a] * (np.arange(num) != first)):
            chance = positives[a, first] * pull[a, second] / (1 - pull[a, first])
            both[a, first, second] = chance
            of_first = push[a, first] * (np.arange(num) != second)
            of_first /= of_first.sum()
            negatives[0, a] += chance * of_first
            # A row for each choice of the negative before.
            of_second = np.tile(push[a, second], (num, 1))
            of_second[:, [first, second]] = 0.0
            np.fill_diagonal(of_second, 0.0)
            of_second /= of_second.sum(axis=1, keepdims=True)
            negatives[1, a] += chance * of_first @ of_second
    return both, negatives


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rings", "compared"])
def test_groups_follow_the_equations_without_repeats(name):
    attributes, kind = labels_of(), kind_of(name)
    both, negatives = group_laws(attributes, kind)
    np.testing.assert_allclose([both.sum(), *negatives.sum(axis=(1, 2))], 1.0)
    groups = create_groups(attributes, kind, positives=2, negatives=2).sample(0, NUM)
    assert groups.counts["repeated_positive"] == 0
    assert groups.counts["repeated_negative"] < NUM / 1000
    assert groups.num_positives == 2
    assert chi_square(groups.indices[:, :3], both) > 1e-3
    for number, law in enumerate(negatives):
        assert chi_square(groups.indices[:, [0, 3 + number]], law) > 1e-3


@pytest.mark.parametrize("name", ["rings", "compared"])
def test_values_are_those_of_the_records(name):
    attributes, kind = labels_of(200), kind_of(name)
    groups = create_groups(attributes, kind, positives=3, negatives=2).sample(4, 500)
    np.testing.assert_array_equal(groups.attributes, attributes[groups.indices])
    expected = kind.pairwise(groups.attributes[:, :1], groups.attributes[:, 1:])
    np.testing.assert_allclose(groups.relevance, expected, rtol=1e-6)
    inside = groups.attributes[:, 3 + 1 :, 0] == groups.attributes[:, :1, 0]
    np.testing.assert_array_equal(groups.in_class, inside)
    for number in range(2):
        gap = groups.relevance[:, number] - groups.relevance[:, 3 + number]
        assert gap[groups.in_class[:, number]].min() > GAP - 1e-6
    ordered = np.sort(groups.indices, axis=1)
    assert np.all(ordered[:, 1:] > ordered[:, :-1])


def test_without_negatives_the_positives_stay():
    attributes, kind = labels_of(), kind_of("rings")
    groups = create_groups(attributes, kind, positives=2, negatives=0).sample(0, NUM)
    assert groups.indices.shape == (NUM, 3)
    assert groups.in_class.shape == (NUM, 0)
    both, _ = group_laws(attributes, kind)
    assert chi_square(groups.indices, both) > 1e-3
    assert not [name for name in groups.metrics() if "negatives" in name]


@pytest.mark.parametrize("name", ["rings", "compared"])
def test_a_category_too_small_repeats_and_counts(name):
    attributes = np.array([[0, 0, 0], [0, 0, 0], [1, 1, 1], [1, 1, 1]], np.int32)
    groups = create_groups(
        attributes, kind_of(name), positives=3, negatives=3
    ).sample(0, 10)  # fmt: skip
    # One other image of its category, and two of the other.
    assert groups.counts["repeated_positive"] == 20
    assert groups.counts["repeated_negative"] == 10
    assert np.all(groups.relevance[:, :3] == 1.0)
    assert np.all(groups.relevance[:, 3:] == 0.0)


@pytest.mark.parametrize("name", ["rings", "compared"])
@pytest.mark.parametrize("mode", ["importance", "uniform"])
def test_positives_have_the_least_relevance_and_anchors_have_positives(name, mode):
    attributes, kind = labels_of(40), kind_of(name)
    options = dict(min_positive_relevance=1.0, mode=mode)
    groups = create_groups(attributes, kind, positives=2, negatives=1, **options)
    drawn = groups.sample(0, 2000)
    lone = np.bincount(attributes[:, 2])[attributes[:, 2]] < 2
    assert np.all(drawn.relevance[:, :2] == 1.0)
    assert not lone[drawn.indices[:, 0]].any()
    assert np.any(drawn.relevance[:, 2] > 0)
    without = create_groups(attributes, kind, positives=2, negatives=1, mode=mode)
    assert np.any(without.sample(0, 2000).relevance[:, :2] < 1.0)


def test_a_positive_without_a_negative_takes_that_of_the_first():
    """All records are relevant to each other: nothing is less so than the least."""
    attributes = np.array([[0, 0, 0], [0, 0, 0], [0, 0, 1]], np.int32)
    groups = create_groups(
        attributes, kind_of("compared"), positives=2, negatives=2
    ).sample(0, 50)  # fmt: skip
    # Of each of the first two the positives are 1.0 and 0.4; only the first has one.
    assert set(groups.indices[:, 0]) <= {0, 1}
    assert np.all(groups.indices[:, 3:] == 2)
    np.testing.assert_allclose(groups.relevance[:, 2:], 0.4)


def test_a_group_of_one_and_one_is_the_triplet():
    attributes, kind = labels_of(100), kind_of("rings")
    options = dict(min_relevance_gap=GAP, out_of_class=OUTSIDE, seed=1)
    triplets = create_sampler(attributes, kind, **options).sample(3, 50)
    groups = create_groups(attributes, kind, positives=1, negatives=1).sample(3, 50)
    np.testing.assert_array_equal(groups.indices, triplets.indices)
    np.testing.assert_array_equal(groups.relevance, triplets.relevance)
    np.testing.assert_array_equal(groups.in_class[:, 0], triplets.in_class)


def test_a_step_is_the_same_whenever_it_is_drawn():
    attributes, kind = labels_of(300), kind_of("rings")
    options = dict(positives=3, negatives=1, capacity=20, records_per_step=40)
    first = create_groups(attributes, kind, **options)
    second = create_groups(attributes, kind, **options)
    expected = [first.sample(step, 16).indices for step in range(6)]
    for step in (5, 2, 4):
        np.testing.assert_array_equal(second.sample(step, 16).indices, expected[step])
    assert first.state(3)["positives_per_anchor"] == 3


@pytest.mark.parametrize(
    ("positives", "negatives", "message"),
    [(0, 1, "positives_per_anchor must be at l"), (1, -1, "negatives_per_anchor mus")],
)
def test_sizes_out_of_range_are_refused(positives, negatives, message):
    with pytest.raises(ValueError, match=message):
        create_groups(
            labels_of(), kind_of("rings"), positives=positives, negatives=negatives
        )
