"""Views of unlabelled images: epochs, processes and steps."""

import numpy as np
import pytest

from deeprank_jax.sampling.view_sampler import ViewSampler


def create(shard=0, num_shards=1, seed=3, num_views=2):
    return ViewSampler(
        13, num_views=num_views, seed=seed, shard=shard, num_shards=num_shards
    )


def stream(sampler, num_steps, batch_size=4):
    batches = [sampler.sample(step, batch_size) for step in range(num_steps)]
    return np.concatenate([batch.indices[:, 0] for batch in batches])


@pytest.mark.parametrize("num_views", [1, 2])
def test_a_row_holds_views_of_one_image(num_views):
    batch = create(num_views=num_views).sample(5, 8)
    assert batch.indices.shape == (8, num_views)
    np.testing.assert_array_equal(
        batch.indices, batch.indices[:, :1].repeat(num_views, 1)
    )
    instances = batch.arrays()["instances"]
    assert instances.dtype == np.int32
    np.testing.assert_array_equal(instances, batch.indices)
    assert len(np.unique(batch.indices)) > 6


def test_every_epoch_shows_every_image_once_in_a_new_order():
    epochs = stream(create(), 13).reshape(4, 13)
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(13))
    assert len({epoch.tobytes() for epoch in epochs}) == 4


def test_shards_deal_the_same_stream():
    whole = stream(create(), 12, batch_size=4)
    parts = [stream(create(shard, 2), 12, batch_size=2) for shard in (0, 1)]
    np.testing.assert_array_equal(np.stack(parts, axis=1).reshape(-1), whole)


def test_a_step_is_the_same_in_any_order():
    one, two = create(), create()
    two.sample(9, 4)
    np.testing.assert_array_equal(one.sample(2, 4).indices, two.sample(2, 4).indices)
    other = create(seed=4).sample(2, 4).indices
    assert not np.array_equal(one.sample(2, 4).indices, other)


def test_bad_images_are_replaced_and_counted():
    batch = create().sample(0, 4)
    replaced = batch.take(np.array([0, 0, 2, 3]), 1)
    np.testing.assert_array_equal(replaced.indices, batch.indices[[0, 0, 2, 3]])
    assert replaced.metrics() == {"sampler_failures/bad_image": 1}


def test_the_state_names_the_views():
    states = [create(num_views=n).state(7) for n in (1, 2)]
    assert [state.pop("num_views") for state in states] == [1, 2]
    assert states[0] == states[1]
    assert states[0]["step"] == 7


def test_no_view_is_refused():
    with pytest.raises(ValueError, match="num_views must be at least 1, got 0"):
        create(num_views=0)
