from helpers.samplers import create_candidates_of, create_sampler
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from deeprank_jax import relevance
from deeprank_jax.sampling import (
    NoTripletError,
    level_shares,
    sample_evaluation_triplets,
)

HIERARCHY = relevance.Hierarchy((0.1, 0.4, 1.0))


def random_attributes(seed=0, size=301, num=24):
    """Three levels: `num` labels, three to a middle one, six to a category."""
    label = np.random.default_rng(seed).integers(0, num, size)
    return np.stack([label // 6, label // 3, label], axis=1).astype(np.int32)


def labels(*numbers):
    return np.array(numbers, np.int32)[:, None]


def assert_same(one, other):
    assert one.step == other.step
    assert one.counts == other.counts
    for name in ("indices", "attributes", "relevance", "in_class"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def create(seed=3, **options):
    """A sampler that passes 301 records in 16 steps and starts before the first end."""
    options = {"capacity": 12, "records_per_step": 19, "warmup_records": 40} | options
    return create_sampler(random_attributes(), HIERARCHY, seed=seed, **options)


def test_a_triplet_says_what_it_is():
    attributes = random_attributes()
    drawn = create_sampler(attributes, HIERARCHY, seed=0).sample(7, 32)
    assert drawn.step == 7
    assert drawn.indices.shape == (32, 3)
    assert drawn.indices.dtype == np.int64
    assert drawn.attributes.dtype == np.int32
    np.testing.assert_array_equal(drawn.attributes, attributes[drawn.indices])
    expected = HIERARCHY.pairwise(drawn.attributes[:, :1], drawn.attributes[:, 1:])
    np.testing.assert_array_equal(drawn.relevance, expected)
    assert set(drawn.in_class) == {True, False}


def test_seed_and_step_decide_everything():
    assert_same(create().sample(4, 16), create().sample(4, 16))
    first = create().sample(4, 16).indices
    assert (first != create(seed=4).sample(4, 16).indices).any()
    whole = create(capacity=1000, warmup_records=301)
    assert (whole.sample(4, 16).indices != whole.sample(5, 16).indices).any()


@pytest.mark.slow
@pytest.mark.parametrize("capacity", [12, 1000])
@pytest.mark.parametrize(
    ("warmup", "per_step"), [(40, 19), (301, 19), (1000, 19), (40, 2), (40, 700)]
)
def test_going_to_a_step_equals_having_run_from_0(capacity, warmup, per_step):
    """Up to many passes; every step is reached at once, forwards and back."""
    options = {
        "capacity": capacity,
        "warmup_records": warmup,
        "records_per_step": per_step,
    }
    running = create(**options)
    run = [running.sample(step, 8) for step in range(64)]
    for step in range(0, 64, 7):
        assert_same(create(**options).sample(step, 8), run[step])
    back = create(**options)
    for step in reversed(range(64)):
        assert_same(back.sample(step, 8), run[step])
    order = np.random.default_rng(0).permutation(64)
    for step in order:
        assert_same(running.sample(int(step), 8), run[step])


def test_buffers_filled_in_many_blocks_are_those_filled_in_one():
    one, many = create(), create()
    many._block = 5
    for step in range(0, 64, 3):
        assert_same(one.sample(step, 8), many.sample(step, 8))
        # The next pass's buffers keep up, so that no step has them all to fill.
        assert 0 <= (40 + 19 * step) - (301 * many._filling + many._filled) < 5


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), step=st.integers(0, 200))
def test_no_record_is_twice_in_a_buffer(seed, step):
    table = create(seed=seed).seek(step)
    assert len(np.unique(table.index)) == len(table.index)
    assert np.bincount(table.label).max() <= 12


def test_buffers_fill_and_then_change_with_every_pass():
    sampler = create()
    sampler.continue_as(4)  # All tables, not only those that are drawn from.
    held = [sampler.seek(step).index for step in range(64)]
    assert len(held[0]) < len(held[13]) == 4 * 12
    # 301 records: steps 14 to 29 draw from pass 0, those from 30 on from pass 1.
    for first, last in [(14, 29), (30, 45)]:
        np.testing.assert_array_equal(held[first], held[last])
        assert not np.array_equal(held[last], held[last + 1])


def test_buffers_of_the_first_pass_are_renewed_every_few_steps():
    """Each step shows 2 records; 4 * 13 slots are sorted for 6 records at a time."""
    sampler = create(records_per_step=2)
    held = [set(sampler.seek(step).index) for step in range(9)]
    assert held[0] == held[2] != held[3] == held[5] != held[6] == held[8]


def test_classes_as_categories_have_no_in_class_negative():
    """They are counted, and drawn from other classes."""
    attributes = labels(0, 0, 0, 1, 1, 2, 2, 2, 2)
    sampler = create_sampler(attributes, relevance.SameClass(), seed=0)
    drawn = sampler.sample(0, 500)
    anchor, positive, negative = drawn.attributes[..., 0].T
    assert (anchor == positive).all()
    assert (anchor != negative).all()
    assert not drawn.in_class.any()
    assert 300 < drawn.counts["no_in_class_negative"] < 480


def test_one_category_has_no_other_and_its_negatives_are_uniform():
    attributes = labels(*[0] * 3, *[1] * 3, 2)
    sampler = create_sampler(
        attributes, relevance.SameClass(), seed=0, category_level=None
    )
    assert sampler.candidates.num_without_positive == 1
    drawn = sampler.sample(0, 6000)
    anchor, positive, negative = drawn.attributes[..., 0].T
    assert (anchor == positive).all()
    assert (anchor != negative).all()
    assert drawn.in_class.all()
    assert drawn.counts["no_other_category"] == pytest.approx(1200, abs=150)
    # Also the class of one, which can be nothing else.
    assert np.mean(negative == 2) == pytest.approx(1 / 4, abs=0.03)


def test_a_record_without_a_positive_can_be_an_out_of_class_negative():
    attributes = np.array([[0, 0], [0, 0], [1, 1], [1, 2], [1, 3]], np.int32)
    sampler = create_sampler(
        attributes, relevance.Hierarchy((0.0, 1.0)), seed=0, out_of_class=1.0
    )
    assert sampler.candidates.num_without_positive == 3
    drawn = sampler.sample(0, 3000)
    assert set(np.unique(drawn.indices[:, :2])) == {0, 1}
    np.testing.assert_allclose(
        np.bincount(drawn.indices[:, 2]) / 3000, [0, 0, 1 / 3, 1 / 3, 1 / 3], atol=0.04
    )


def test_records_without_a_positive_keep_their_share_in_small_buffers():
    """Of 40 records that are negatives for others, 20 have no positive."""
    pair = np.concatenate([[0, 0], np.repeat(np.arange(1, 11), 2), np.arange(11, 31)])
    attributes = np.stack([pair > 0, pair], axis=1).astype(np.int32)
    kind = relevance.Hierarchy((0.0, 1.0))
    sampler = create_sampler(
        attributes, kind, seed=0, capacity=15, records_per_step=len(pair)
    )
    assert sampler.candidates.num_without_positive == 20
    sampler.continue_as(4)  # All tables, not only those that are drawn from.
    tables = [sampler.seek(step) for step in range(400)]
    weights = [np.sum(table.lift[table.index >= 22]) for table in tables]
    assert np.mean(weights) == pytest.approx(20, abs=1)
    # They race like the slowest of the others, and do not crowd them out.
    held = [np.sum(table.index >= 22) for table in tables]
    assert np.mean(held) == pytest.approx(15 * 20 / 40, abs=0.5)
    alone = np.isin(np.arange(42), sampler.sample(0, 4000).indices[:, 2])[22:]
    assert alone.any()


def test_an_anchor_without_a_positive_in_the_buffer_is_not_drawn():
    """Each category has 40 pairs, of which a buffer of 30 breaks many."""
    attributes = np.stack([np.repeat([0, 1], 80), np.repeat(np.arange(80), 2)], axis=1)
    sampler = create_sampler(
        attributes, relevance.Hierarchy((0.0, 1.0)), seed=0, capacity=30
    )
    drawn = sampler.sample(0, 64)
    assert (drawn.relevance[:, 0] == 1.0).all()
    assert drawn.counts["no_positive"] == 0
    assert drawn.counts["repeated"] == 0


def test_a_triplet_that_cannot_be_drawn_repeats_another():
    """One pair in 5,000 is whole, so that most draws fail every time."""
    size = 10_000
    pair = np.repeat(np.arange(size // 2), 2)
    attributes = np.stack([np.zeros_like(pair), pair], axis=1)
    options = {"category_level": 0, "capacity": 300, "out_of_class": 0.0}
    kind = relevance.Hierarchy((0.0, 1.0))
    sampler = create_sampler(attributes, kind, seed=0, **options)
    sampler.continue_as(2)  # Draws anchors without a positive, too.
    drawn = sampler.sample(0, 64)
    assert (drawn.relevance[:, 0] == 1.0).all()
    assert 0 < drawn.counts["repeated"] < 64
    again = create_sampler(attributes, kind, seed=0, **options)
    again.continue_as(2)
    assert_same(drawn, again.sample(0, 64))


@pytest.mark.parametrize(
    ("attributes", "options"),
    [
        (labels(0, 0, 0), {}),
        (labels(0, 0, 1, 1), {"category_level": None, "min_relevance_gap": 2.0}),
        (labels(*np.repeat(np.arange(5000), 2)), {"warmup_records": 1}),
    ],
    ids=["one_class", "wide_gap", "nearly_empty_buffers"],
)
def test_nothing_to_draw_is_refused(attributes, options):
    sampler = create_sampler(attributes, relevance.SameClass(), seed=0, **options)
    with pytest.raises(NoTripletError, match=r"No triplet was found .* raise capacity"):
        sampler.sample(0, 8)


def test_records_without_any_positive_are_refused():
    with pytest.raises(NoTripletError, match="None of the 3 records is relevant"):
        create_sampler(labels(0, 1, 2), relevance.SameClass(), seed=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed must be at least 0"),
        ({"capacity": 1}, "capacity must be at least 2"),
        ({"warmup_records": 0}, "warmup_records must be at least 1"),
        ({"records_per_step": 0}, "records_per_step must be at least 1"),
        ({"positive_cap": 0.0}, "positive_cap must be above 0"),
        ({"min_relevance_gap": -0.1}, "min_relevance_gap must be at least 0"),
        ({"min_relevance_gap": np.nan}, "min_relevance_gap must be at least 0"),
        ({"out_of_class": 1.1}, "in \\[0, 1\\], got 1.1"),
        ({"category_level": 3}, "one of the 3 levels"),
        ({"mode": "best"}, r"mode must be .* or .*, got 'best'"),
        ({"num_shards": 0}, "num_shards must be at least 1"),
        ({"shard": 2, "num_shards": 2}, r"one of the 2 \(0 to 1\), got 2"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        create_sampler(random_attributes(), HIERARCHY, **{"seed": 0} | options)


def test_bad_shapes_and_totals_are_refused():
    class Broken(relevance.SameClass):
        def total(self, attributes):
            return np.where(attributes[:, 0] == 2, np.nan, 1.0)

    with pytest.raises(ValueError, match="got nan for record 4"):
        create_sampler(labels(0, 0, 1, 1, 2, 2), Broken(), seed=0)
    with pytest.raises(ValueError, match=r"labels must be \[N, L\]"):
        create_sampler(np.zeros(3, np.int32), HIERARCHY, seed=0)
    with pytest.raises(ValueError, match="step must be at least 0"):
        create().sample(-1, 8)


def test_relevance_counts_inside_the_category_only():
    """By the middle level a record's total leaves its cousins out."""
    attributes = random_attributes()
    sampler = create_sampler(attributes, HIERARCHY, seed=0, category_level=1)
    block = HIERARCHY.pairwise(attributes[:, None], attributes[None])
    block *= attributes[:, None, 1] == attributes[None, :, 1]
    np.testing.assert_allclose(sampler.candidates.totals, block.sum(axis=1) - 1.0)
    drawn = sampler.sample(0, 1000)
    assert (drawn.relevance[:, 0] >= 0.4).all()
    assert (drawn.relevance[~drawn.in_class, 1] == 0).all()


def test_evaluation_triplets_are_fixed_by_their_seed():
    attributes = random_attributes(size=2000)
    options = {"min_relevance_gap": 0.2, "out_of_class": 0.25}
    candidates = create_candidates_of(attributes, HIERARCHY)
    triplets = sample_evaluation_triplets(
        candidates, HIERARCHY, 5000, seed=1, **options
    )
    again = sample_evaluation_triplets(candidates, HIERARCHY, 5000, seed=1, **options)
    np.testing.assert_array_equal(triplets, again)
    assert triplets.shape == (5000, 3)
    assert triplets.dtype == np.int64
    anchor, _, negative = attributes[triplets][..., 0].T
    assert 0.23 < np.mean(anchor != negative) < 0.6
    assert len(np.unique(triplets[:, 0])) > 1500


def test_level_shares_count_the_deepest_level():
    names = ("category", "class")
    attributes = np.array(
        [
            [[0, 0], [0, 0], [0, 1]],
            [[0, 0], [0, 1], [1, 2]],
            [[1, 2], [1, 2], [0, 1]],
            [[1, 2], [1, 2], [1, 3]],
        ]
    )
    assert level_shares(attributes, names) == {
        "positives/class": 0.75,
        "positives/category": 0.25,
        "positives/none": 0.0,
        "negatives/class": 0.0,
        "negatives/category": 0.5,
        "negatives/none": 0.5,
    }
    assert set(level_shares(attributes[:0], names).values()) == {0.0}
    with pytest.raises(ValueError, match="level_names must name the 2 levels"):
        level_shares(attributes, ("category",))
