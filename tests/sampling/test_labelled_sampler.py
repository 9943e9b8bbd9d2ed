import numpy as np
import pytest

from deeprank_jax.errors import DataError
from deeprank_jax.sampling.labelled_sampler import LabelledSampler, hold_out


def create(shard=0, num_shards=1, seed=3, size=13):
    indices = np.arange(size) * 2 + 1
    labels = np.arange(size) % 3
    return LabelledSampler(
        indices, labels, seed=seed, shard=shard, num_shards=num_shards
    )


def drawn(sampler, num_steps, batch_size=4):
    batches = [sampler.sample(step, batch_size) for step in range(num_steps)]
    return np.concatenate([batch.indices[:, 0] for batch in batches])


def test_every_pass_shows_every_record_once_in_a_new_order():
    stream = drawn(create(), 13)  # Four passes.
    passes = stream.reshape(4, 13)
    for one in passes:
        np.testing.assert_array_equal(np.sort(one), np.arange(13) * 2 + 1)
    assert len({one.tobytes() for one in passes}) == 4


def test_shards_deal_the_same_stream():
    whole = drawn(create(), 12, batch_size=4)
    parts = [drawn(create(shard, 2), 12, batch_size=2) for shard in (0, 1)]
    np.testing.assert_array_equal(np.stack(parts, axis=1).reshape(-1), whole)


def test_labels_are_those_of_the_records():
    batch = create().sample(5, 8)
    assert batch.indices.shape == batch.labels.shape == (8, 1)
    np.testing.assert_array_equal(batch.labels, (batch.indices - 1) // 2 % 3)
    assert batch.labels.dtype == np.int32
    assert len(np.unique(batch.labels)) > 1


def test_a_step_is_the_same_whenever_it_is_asked():
    one, two = create(), create()
    two.sample(9, 4)
    np.testing.assert_array_equal(one.sample(2, 4).indices, two.sample(2, 4).indices)
    other = create(seed=4).sample(2, 4).indices
    assert not np.array_equal(one.sample(2, 4).indices, other)


def test_bad_images_are_replaced_and_counted():
    batch = create().sample(0, 4)
    taken = batch.take(np.array([0, 0, 2, 3]), 1)
    np.testing.assert_array_equal(taken.indices, batch.indices[[0, 0, 2, 3]])
    np.testing.assert_array_equal(taken.labels, batch.labels[[0, 0, 2, 3]])
    assert taken.metrics() == {"sampler_failures/bad_image": 1}


@pytest.mark.parametrize("share", [0.001, 0.1, 0.999])
def test_held_out_records_are_the_others(share):
    learned, held = hold_out(50, share, seed=0)
    assert len(held) == {0.001: 1, 0.1: 5, 0.999: 49}[share]
    both = np.concatenate([learned, held])
    np.testing.assert_array_equal(np.sort(both), np.arange(50))
    np.testing.assert_array_equal(held, hold_out(50, share, seed=0)[1])
    if len(held) == 5:
        assert not np.array_equal(held, hold_out(50, share, seed=1)[1])


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_out_of_its_range_is_refused(share):
    with pytest.raises(ValueError, match="held_out must be above 0 and below 1"):
        hold_out(9, share, seed=0)


def test_a_single_record_cannot_be_held_out():
    with pytest.raises(DataError, match=r"1 image.* give at least 2"):
        hold_out(1, 0.5, seed=0)


@pytest.mark.parametrize(
    "change", [dict(seed=-1), dict(shard=2, num_shards=2), dict(size=0)]
)
def test_bad_arguments_are_refused(change):
    with pytest.raises(ValueError, match="at least"):
        create(**change)


def test_bad_steps_are_refused():
    with pytest.raises(ValueError, match="step must be at least 0"):
        create().sample(-1, 4)
