import collections
import dataclasses
import itertools

import numpy as np
import pytest

from deeprank_jax import relevance
from deeprank_jax.data.records import Records
from deeprank_jax.sampling import BatchStream
from deeprank_jax.sampling.file_sampler import (
    FileSampler,
    FileTripletData,
    create_triplets,
    draw_for_every_record,
)
from deeprank_jax.sampling.reservoir.draws import CAUSES

GRADED = relevance.Hierarchy((0.1, 1.0))


def create_records(num=40, name="photos/train"):
    """Five records a class, two classes a category."""
    label = np.arange(num) // 5
    return Records(
        name=name,
        labels=np.stack([label // 2, label], axis=1).astype(np.int32),
        level_names=("coarse", "fine"),
        label_names=((), ()),
        read=lambda index: b"",
        describe=str,
    )


RECORDS = create_records()


def create_data(size, with_relevance=False):
    """Rows that differ, so that a triplet tells its row."""
    rows = np.array(list(itertools.islice(itertools.permutations(range(40), 3), size)))
    values = np.stack([np.arange(size) + 1.0, np.arange(size)], axis=1)
    return FileTripletData(
        path="t.csv",
        indices=np.random.default_rng(0).permutation(rows).astype(np.int32),
        relevance=values if with_relevance else None,
    )


def create_sampler(size=23, with_relevance=False, **options):
    options = {"seed": 1, "category_level": 0, **options}
    return FileSampler(create_data(size, with_relevance), RECORDS, GRADED, **options)


def rows_of(sampler, step, batch_size, size=23):
    """Returns which rows of the list a batch holds."""
    row_of = {tuple(row): n for n, row in enumerate(create_data(size).indices.tolist())}
    return [row_of[tuple(x)] for x in sampler.sample(step, batch_size).indices.tolist()]


def stream_of(sampler, num_steps, batch_size, size=23):
    steps = [rows_of(sampler, step, batch_size, size) for step in range(num_steps)]
    return list(itertools.chain.from_iterable(steps))


@pytest.mark.parametrize("batch_size", [1, 4, 22, 23, 24, 60])
def test_each_pass_holds_every_row_once_in_an_order_of_its_own(batch_size):
    num_steps = -(-23 * 12 // batch_size)
    stream = stream_of(create_sampler(), num_steps, batch_size)
    passes = [tuple(stream[first : first + 23]) for first in range(0, 23 * 12, 23)]
    assert all(sorted(rows) == list(range(23)) for rows in passes)
    assert len(set(passes)) == 12
    # The stream of rows is the same for each batch size.
    assert stream[: 23 * 12] == stream_of(create_sampler(), 23 * 12, 1)


@pytest.mark.slow
def test_orders_are_even():
    """Each of the six orders of three rows, in 3,000 passes about 500 times."""
    stream = stream_of(create_sampler(3), 100, 90, 3)
    orders = collections.Counter(map(tuple, np.reshape(stream, (3000, 3)).tolist()))
    assert len(orders) == 6
    chi_square = sum((count - 500) ** 2 / 500 for count in orders.values())
    assert chi_square < 20.5  # The .999 quantile of five degrees of freedom.


def test_another_seed_gives_other_orders():
    first, second = (stream_of(create_sampler(seed=seed), 1, 23) for seed in (1, 2))
    assert first != second
    assert sorted(first) == sorted(second)


@pytest.mark.slow
@pytest.mark.parametrize("num_shards", [2, 3, 4, 30])
def test_shards_deal_out_the_stream_of_one(num_shards):
    """Also where there are more shards than rows, or they do not divide them."""
    single = stream_of(create_sampler(), 24, 2 * num_shards)
    shards = [
        stream_of(create_sampler(shard=shard, num_shards=num_shards), 24, 2)
        for shard in range(num_shards)
    ]
    assert np.transpose(shards).ravel().tolist() == single
    for step in range(24):  # What one process would draw is what they draw together.
        dealt = [row for rows in shards for row in rows[2 * step : 2 * step + 2]]
        whole = single[2 * num_shards * step : 2 * num_shards * (step + 1)]
        assert sorted(dealt) == sorted(whole)


@pytest.mark.parametrize("num_shards", [2, 3, 5])
def test_no_row_is_in_the_passes_of_two_shards(num_shards):
    of_pass = collections.defaultdict(list)
    for shard in range(num_shards):
        sampler = create_sampler(shard=shard, num_shards=num_shards)
        for number, row in enumerate(stream_of(sampler, 50, 2)):
            of_pass[(number * num_shards + shard) // 23].append((shard, row))
    complete = 100 * num_shards // 23
    assert complete > 5
    for pass_index in range(complete):
        shards, rows = zip(*of_pass[pass_index], strict=True)
        assert sorted(rows) == list(range(23))
        sizes = collections.Counter(shards).values()
        assert max(sizes) - min(sizes) <= 1


def test_a_step_is_the_same_whenever_it_is_asked_for():
    sampler = create_sampler()
    forward = [rows_of(sampler, step, 5) for step in range(30)]
    assert [rows_of(sampler, step, 5) for step in range(29, -1, -1)] == forward[::-1]
    assert rows_of(create_sampler(), 17, 5) == forward[17]
    assert len(set(map(tuple, forward))) == 30
    late = 10**12
    assert rows_of(create_sampler(), late, 5) == rows_of(sampler, late, 5)


def load(indices):
    images = np.broadcast_to(indices[:, None, None, None], (len(indices), 2, 2, 3))
    return images.astype(np.uint8), np.ones(len(indices), bool)


def jitter(images, rng):
    return images + rng.integers(0, 9, images.shape, np.uint8)


def run_stream(depth, first_step, num_steps):
    """Returns the batches as bytes, with the state behind each."""
    with BatchStream(
        create_sampler(), 7, load, jitter,
        first_step=first_step, num_steps=num_steps, depth=depth,
    ) as stream:  # fmt: skip
        return [
            (batch.groups.indices.tobytes(), batch.images.tobytes(), stream.state())
            for batch in stream
        ]


@pytest.mark.slow
@pytest.mark.parametrize("depth", [0, 1, 2, 8])
def test_a_run_stopped_after_any_batch_goes_on_exactly(depth):
    whole = run_stream(0, 0, 50)
    assert len({indices for indices, _, _ in whole}) == 50
    for num_before in range(51):
        before = run_stream(depth, 0, num_before)
        step = before[-1][2]["step"] if before else 0
        assert step == num_before
        assert before + run_stream(depth, step, 50 - step) == whole


def test_the_state_tells_lists_and_seeds_apart():
    state = create_sampler().state(12)
    assert state["step"] == 12
    assert state == create_sampler().state(12)
    for options in ({"size": 22}, {"with_relevance": True}, {"seed": 2}):
        assert create_sampler(**options).state(12) != state
    other = create_sampler(num_shards=4, shard=3).state(12)
    assert {name for name in state if state[name] != other[name]} == {"num_shards"}


@pytest.mark.parametrize("level", [0, 1, -1, None])
def test_a_triplet_comes_with_what_is_known_of_it(level):
    triplets = create_sampler(200, category_level=level).sample(3, 100)
    assert triplets.step == 3
    assert triplets.indices.dtype == np.int64
    assert triplets.relevance.dtype == np.float64
    assert triplets.counts == dict.fromkeys(CAUSES, 0)
    labels = RECORDS.labels
    seen = set()
    for i, (a, p, n) in enumerate(triplets.indices):
        inside = level is None or labels[a, level] == labels[n, level]
        of_depth = (0.0, 0.1, 1.0)
        expected = [of_depth[(labels[a] == labels[other]).sum()] for other in (p, n)]
        expected[1] *= inside
        np.testing.assert_array_equal(triplets.attributes[i], labels[[a, p, n]])
        np.testing.assert_array_equal(triplets.relevance[i], expected)
        assert triplets.in_class[i] == inside
        seen.add((inside, *expected))
    assert len(seen) > 3


def test_the_relevance_of_the_file_comes_first():
    sampler = create_sampler(with_relevance=True)
    triplets = sampler.sample(2, 23)
    rows = np.array(rows_of(sampler, 2, 23))
    np.testing.assert_array_equal(triplets.relevance, np.stack([rows + 1, rows], 1))


def test_attributes_are_those_of_the_relevance():
    points = np.random.default_rng(0).random((40, 3), np.float32)

    class Near:
        def pairwise(self, a, b):
            return 1.0 / (1.0 + np.square(a - b).sum(axis=-1))

    records = dataclasses.replace(RECORDS, attributes=points)
    rows = create_data(20).indices.astype(np.int64)
    triplets = create_triplets(rows, records, Near(), None)
    np.testing.assert_array_equal(triplets.attributes, points[rows])
    for (a, p, n), found in zip(rows, triplets.relevance, strict=True):
        expected = [1 / (1 + sum((points[a] - points[x]) ** 2)) for x in (p, n)]
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed must be at least 0"),
        ({"shard": 2, "num_shards": 2}, "below num_shards=2, got 2"),
        ({"shard": -1}, "below num_shards"),
        ({"num_shards": 0}, "below num_shards"),
        ({"category_level": 2}, "one of the 2 levels \\(-2 to 1\\), got 2"),
        ({"size": 0}, "t.csv: holds no triplet"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        create_sampler(**options)


def test_numbers_out_of_range_are_refused():
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        create_sampler().sample(0, 0)
    with pytest.raises(ValueError, match="step must be at least 0"):
        create_sampler().sample(-1, 1)
    few = create_records(30)
    with pytest.raises(ValueError, match="must index the 30 records of photos/train"):
        FileSampler(create_data(59_000), few, GRADED, seed=0, category_level=0)


def of_labels(*labels):
    column = np.array(labels, np.int32)[:, None]
    return dataclasses.replace(RECORDS, labels=column, attributes=column)


@pytest.mark.parametrize(("positives", "negatives"), [(1, 1), (2, 3), (9, 99)])
def test_every_record_gets_as_many_as_there_are(positives, negatives):
    labels = [3, 0, 1, 0, 1, 1, 0, 3, 1, 5]
    batches = list(
        draw_for_every_record(of_labels(*labels), positives, negatives, seed=0)
    )
    rows = [tuple(row) for batch in batches for row in batch.indices.tolist()]
    assert len(set(rows)) == len(rows)
    for a, p, n in rows:
        assert a != p
        assert labels[a] == labels[p] != labels[n]
    for anchor, label in enumerate(labels):
        same, other = labels.count(label) - 1, len(labels) - labels.count(label)
        found = [row for row in rows if row[0] == anchor]
        assert len({p for _, p, _ in found}) == min(positives, same)
        assert len(found) == min(positives, same) * min(negatives, other)
    for batch in batches:
        assert (batch.attributes[..., 0] == np.array(labels)[batch.indices]).all()
        assert not batch.in_class.any()
        assert (batch.relevance == [1.0, 0.0]).all()


def test_one_class_alone_has_no_triplet():
    batches = list(draw_for_every_record(of_labels(2, 2, 2), 1, 1, seed=0))
    assert sum(len(batch.indices) for batch in batches) == 0


def test_others_are_drawn_evenly():
    """Of the first record, two positives and three negatives, in 1,500 draws."""
    counts = collections.Counter()
    for seed in range(1500):
        drawn = draw_for_every_record(of_labels(0, 1, 0, 1, 0, 2), 1, 1, seed=seed)
        counts.update(tuple(row) for t in drawn for row in t.indices.tolist())
    of_first = {row: count for row, count in counts.items() if row[0] == 0}
    assert set(of_first) == set(itertools.product([0], [2, 4], [1, 3, 5]))
    chi_square = sum((count - 250) ** 2 / 250 for count in of_first.values())
    assert chi_square < 20.5


def test_the_same_seed_draws_the_same():
    draw = lambda seed: np.concatenate(
        [t.indices for t in draw_for_every_record(RECORDS, 2, 2, seed=seed)]
    )
    np.testing.assert_array_equal(draw(1), draw(1))
    assert (draw(1) != draw(2)).any()
    with pytest.raises(ValueError, match="num_positives must be at least 1"):
        next(draw_for_every_record(RECORDS, 0, 1, seed=0))
