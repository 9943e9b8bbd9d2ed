"""The laws of anchors, positives and negatives against exact enumeration."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from deeprank_jax import relevance
from deeprank_jax.sampling import TripletSampler


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Relevance by a table; the last attribute is the record's own index."""

    table: np.ndarray

    def pairwise(self, a, b):
        return self.table[a[..., -1], b[..., -1]]

    def total(self, attributes):
        block = self.pairwise(attributes[:, None], attributes[None])
        return block.sum(axis=1) - np.diagonal(block)


def uneven_categories(seed, sizes=(10, 8, 6)):
    """Records whose relevances span decades, with some that nobody is relevant to."""
    label = np.repeat(np.arange(len(sizes)), sizes)
    table = np.random.default_rng(seed).lognormal(size=(len(label),) * 2)
    table = np.sqrt(table * table.T)
    table[3, :] = table[:, 3] = 0.0
    table[1, 2] = table[2, 1] = 0.0
    attributes = np.stack([label, np.arange(len(label))], axis=1).astype(np.int32)
    return attributes, Pairs(table)


def enumerate_laws(attributes, kind, cap, gap, out_of_class):
    """Eqs. (6)-(8), one triplet at a time: laws of `(anchor, other)` `[N, N]`.

    Returns positives, in-class negatives and out-of-class negatives, each with its
    probability, so that both kinds of negatives sum to 1.
    """
    num = len(attributes)
    label = attributes[:, 0]
    r = kind.pairwise(attributes[:, None], attributes[None])
    r = np.where((label[:, None] == label) & ~np.eye(num, dtype=bool), r, 0.0)
    positives, inside, outside = np.zeros((3, num, num))
    for i in range(num):
        share = r[i].sum() / r.sum()
        for p in np.flatnonzero(r[i]):
            chance = share * min(cap, r[i, p]) / np.minimum(cap, r[i]).sum()
            positives[i, p] += chance
            allowed = [
                n
                for n in range(num)
                if label[n] == label[i] and n != i and r[i, p] - r[i, n] >= gap > 0
            ]
            weight = np.array([min(cap, r[i, n]) for n in allowed])
            if allowed and not weight.any():
                weight = np.ones(len(allowed))
            other = 1.0
            if len(allowed):
                other = out_of_class
                law = (1 - out_of_class) * weight / weight.sum()
                inside[i, allowed] += chance * law
            elsewhere = label != label[i]
            outside[i, elsewhere] += chance * other / elsewhere.sum()
    return positives, inside, outside


def chi_square(pairs, law):
    """p-value of drawn `[n, 2]` pairs; a pair without probability is p = 0."""
    counts = np.zeros(law.shape)
    np.add.at(counts, tuple(pairs.T), 1)
    if counts[law == 0].any():
        return 0.0
    expected = law[law > 0] / law.sum() * len(pairs)
    counts = counts[law > 0]
    few = expected < 5
    if few.any():
        expected = np.append(expected[~few], expected[few].sum())
        counts = np.append(counts[~few], counts[few].sum())
    return stats.chisquare(counts, expected).pvalue


@pytest.mark.parametrize("capacity", [10, 1000])
def test_whole_categories_follow_the_equations(capacity):
    attributes, kind = uneven_categories(seed=0)
    cap, gap, out_of_class = 1.5, 0.4, 0.3
    assert 0.1 < np.mean(kind.table > cap) < 0.9  # T_p binds for some.
    sampler = TripletSampler(
        attributes,
        kind,
        seed=1,
        capacity=capacity,
        positive_cap=cap,
        min_relevance_gap=gap,
        out_of_class=out_of_class,
    )
    assert sampler.num_without_positive == 1
    drawn = sampler.sample(0, 100_000)
    laws = enumerate_laws(attributes, kind, cap, gap, out_of_class)
    positives, inside, outside = laws
    np.testing.assert_allclose([positives.sum(), (inside + outside).sum()], 1.0)

    anchor_law = positives.sum(axis=1, keepdims=True)
    anchors = np.stack([drawn.indices[:, 0], np.zeros(100_000, int)], axis=1)
    assert chi_square(anchors, anchor_law) > 1e-3
    assert chi_square(drawn.indices[:, :2], positives) > 1e-3
    with_negative = drawn.indices[:, [0, 2]]
    assert chi_square(with_negative[drawn.in_class], inside) > 1e-3
    assert chi_square(with_negative[~drawn.in_class], outside) > 1e-3
    num_inside = int(drawn.in_class.sum())
    assert stats.binomtest(num_inside, 100_000, inside.sum()).pvalue > 1e-3
    # Those that fell back are what lies above the ratio asked for.
    fallen = drawn.counts["no_in_class_negative"]
    assert fallen > 1000
    assert fallen / 100_000 == pytest.approx(outside.sum() - 0.3, abs=0.01)
    assert drawn.counts["no_positive"] == drawn.counts["repeated"] == 0


def test_many_small_categories_follow_the_equations():
    """They share padded blocks: the law must not see the padding."""
    attributes, kind = uneven_categories(seed=3, sizes=(5, 2, 4, 3, 2, 9))
    sampler = TripletSampler(attributes, kind, seed=2, min_relevance_gap=0.1)
    drawn = sampler.sample(5, 50_000)
    positives, inside, outside = enumerate_laws(attributes, kind, 1.0, 0.1, 0.2)
    assert chi_square(drawn.indices[:, :2], positives) > 1e-3
    with_negative = drawn.indices[:, [0, 2]]
    assert chi_square(with_negative[drawn.in_class], inside) > 1e-3
    assert chi_square(with_negative[~drawn.in_class], outside) > 1e-3


def test_a_large_category_follows_the_equations():
    """More records than a padded block takes, next to a small category."""
    attributes, kind = uneven_categories(seed=4, sizes=(70, 5))
    sampler = TripletSampler(attributes, kind, seed=2, min_relevance_gap=0.1)
    drawn = sampler.sample(0, 50_000)
    positives, inside, outside = enumerate_laws(attributes, kind, 1.0, 0.1, 0.2)
    assert chi_square(drawn.indices[:, :2], positives) > 1e-3
    with_negative = drawn.indices[:, [0, 2]]
    assert chi_square(with_negative[drawn.in_class], inside) > 1e-3
    assert chi_square(with_negative[~drawn.in_class], outside) > 1e-3


def test_small_buffers_keep_the_laws_over_many_passes():
    """A new pass at every step: 140 records, of which 70 can be drawn."""
    popularity = np.random.default_rng(0).lognormal(size=140)
    attributes = np.stack([np.zeros(140, int), np.arange(140)], axis=1)
    kind = Pairs(np.outer(popularity, popularity))
    sampler = TripletSampler(
        attributes,
        kind,
        seed=3,
        capacity=70,
        records_per_step=140,
        positive_cap=np.inf,
        out_of_class=0.0,
    )
    steps, batch = 2000, 50
    pairs, held = np.zeros((140, 140)), np.zeros(140)
    for step in range(steps):
        np.add.at(pairs, tuple(sampler.sample(step, batch).indices[:, :2].T), 1)
        held[sampler.seek(step).index] += 1
    anchors = pairs.sum(axis=1)
    totals = kind.total(attributes)
    law = totals / totals.sum()
    corrected = 0.5 * np.abs(anchors / anchors.sum() - law).sum()
    uncorrected = 0.5 * np.abs(held / held.sum() - law).sum()
    assert corrected < 0.02
    assert uncorrected > 0.1
    # The positives of the most frequent anchor.
    top = np.argmax(totals)
    expected = np.where(np.arange(140) == top, 0.0, kind.table[top] / totals[top])
    drawn = pairs[top] / pairs[top].sum()
    assert 0.5 * np.abs(drawn - expected).sum() < 0.08


def test_the_gap_and_the_cap_hold_in_every_triplet():
    levels = (0.1, 0.3, 1.0)
    label = np.random.default_rng(0).integers(0, 12, 300)
    attributes = np.stack([label // 6, label // 3, label], axis=1).astype(np.int32)
    sampler = TripletSampler(
        attributes,
        relevance.Hierarchy(levels),
        seed=0,
        min_relevance_gap=0.2,  # Just what lies between two levels, up to rounding.
        positive_cap=0.1,
    )
    drawn = sampler.sample(0, 20_000)
    anchor, positive, negative = drawn.indices.T
    assert (anchor != positive).all()
    assert (anchor != negative).all()
    assert (positive != negative).all()
    gap = drawn.relevance[:, 0] - drawn.relevance[:, 1]
    assert gap[drawn.in_class].min() == pytest.approx(0.2)
    same = attributes[anchor, 0] == attributes[negative, 0]
    np.testing.assert_array_equal(same, drawn.in_class)
    assert (drawn.relevance[~drawn.in_class, 1] == 0).all()
    # With T_p at the lowest level positives are uniform over the category.
    sizes = np.bincount(attributes[:, 0])
    expected = np.mean(
        [(np.sum(attributes[:, 2] == attributes[a, 2]) - 1) for a in anchor]
        / (sizes[attributes[anchor, 0]] - 1)
    )
    share = np.mean(drawn.relevance[:, 0] == 1.0)
    assert share == pytest.approx(expected, abs=0.01)
