"""Listed pairs: epochs, processes and steps."""

import itertools

import numpy as np
import pytest

from deeprank_jax.errors import DataError
from deeprank_jax.sampling import BatchStream
from deeprank_jax.sampling.pair_sampler import ListedPairs, PairSampler

SIZE = 23
INDICES = np.array([*itertools.islice(itertools.combinations(range(9), 2), SIZE)])
IS_SIMILAR = np.random.default_rng(0).random(SIZE) < 0.5


def create_pairs():
    indices = INDICES.astype(np.int32)
    return ListedPairs(path="p.csv", indices=indices, is_similar=IS_SIMILAR)


def create_sampler(**options):
    return PairSampler(create_pairs(), **{"seed": 1, **options})


def rows_of(sampler, step, batch_size):
    """Returns the rows of the list that a batch holds."""
    row_of = {tuple(pair): row for row, pair in enumerate(INDICES.tolist())}
    batch = sampler.sample(step, batch_size)
    rows = [row_of[tuple(pair)] for pair in batch.indices.tolist()]
    np.testing.assert_array_equal(batch.is_similar, IS_SIMILAR[rows])
    return rows


def test_each_epoch_has_every_pair_once_in_an_order_of_its_own():
    sampler = create_sampler()
    stream = [row for step in range(SIZE) for row in rows_of(sampler, step, 4)]
    epochs = [tuple(stream[i : i + SIZE]) for i in range(0, 4 * SIZE, SIZE)]
    assert all(sorted(epoch) == list(range(SIZE)) for epoch in epochs)
    assert len({*epochs}) == 4
    # Any step, at any time.
    assert rows_of(create_sampler(), 17, 4) == stream[17 * 4 : 18 * 4]


def test_shards_share_the_batches_of_one_process():
    shards = [create_sampler(shard=shard, num_shards=2) for shard in range(2)]
    for step in range(20):
        together = {row for x in shards for row in rows_of(x, step, 3)}
        assert together == {*rows_of(create_sampler(), step, 6)}


def test_arrays_and_metrics_are_those_of_the_pairs():
    batch = create_sampler().sample(0, SIZE)
    assert batch.indices.dtype == np.int64
    arrays = batch.arrays()
    assert arrays.keys() == {"is_similar"}
    assert arrays["is_similar"].dtype == np.int32
    np.testing.assert_array_equal(arrays["is_similar"], batch.is_similar)
    num_similar = int(IS_SIMILAR.sum())
    assert batch.metrics() == {
        "sampler_pairs/similar": num_similar,
        "sampler_pairs/different": SIZE - num_similar,
    }


def test_a_pair_with_an_unreadable_image_is_replaced_as_a_whole():
    load = lambda rows: (np.zeros((len(rows), 2, 2, 3), np.uint8), rows != 4)
    stream = BatchStream(
        create_sampler(), 10, load, lambda x, rng: x, first_step=0, num_steps=1
    )
    with stream:
        batch = next(stream)
    assert batch.images.shape == (10, 2, 2, 2, 3)
    num_bad = int((create_sampler().sample(0, 10).indices == 4).any(axis=1).sum())
    assert num_bad > 0
    assert batch.groups.metrics()["sampler_failures/bad_image"] == num_bad
    kinds = {tuple(x): y for x, y in zip(INDICES.tolist(), IS_SIMILAR, strict=True)}
    for pair, kind in zip(batch.groups.indices, batch.groups.is_similar, strict=True):
        assert 4 not in pair
        assert kinds[tuple(pair.tolist())] == kind


def test_the_state_names_all_that_decides_the_draws():
    state = create_sampler().state(7)
    assert state["step"] == 7
    assert create_sampler(seed=2).state(7) != state
    assert create_sampler(num_shards=3).state(7) != state
    other = ListedPairs(path="p.csv", indices=INDICES, is_similar=~IS_SIMILAR)
    assert PairSampler(other, seed=1).state(7)["pairs"] != state["pairs"]


def test_no_pair_is_refused():
    nothing = np.zeros((0, 2), np.int32)
    pairs = ListedPairs(path="p.csv", indices=nothing, is_similar=np.zeros(0, bool))
    with pytest.raises(ValueError, match="size must be at least 1"):
        PairSampler(pairs, seed=0)
    with pytest.raises(DataError, match=r"p\.csv: none of its 0 pairs"):
        pairs.check_kinds("photos/train")
