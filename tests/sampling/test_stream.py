import threading
import time

from helpers.samplers import create_sampler
import numpy as np
import pytest

from deeprank_jax import relevance
from deeprank_jax.sampling import BatchStream

SIZE = 200


def create_small_sampler():
    label = np.arange(SIZE) // 5
    attributes = np.stack([label // 4, label], axis=1).astype(np.int32)
    return create_sampler(attributes, relevance.Hierarchy((0.1, 1.0)), seed=1)


def load(indices):
    """Images that show their record's index."""
    images = np.broadcast_to(indices[:, None, None, None], (len(indices), 2, 2, 3))
    return images.astype(np.uint8), np.ones(len(indices), bool)


def keep(images, rng):
    return images


def create_stream(load_fn=load, augment_fn=keep, first_step=0, num_steps=6, depth=2):
    return BatchStream(
        create_small_sampler(),
        8,
        load_fn,
        augment_fn,
        first_step=first_step,
        num_steps=num_steps,
        depth=depth,
    )


def shown(batch):
    return batch.images[:, :, 0, 0, 0]


@pytest.mark.parametrize("depth", [0, 1, 2, 8])
def test_batches_come_in_order_whatever_the_depth(depth):
    with create_stream(depth=depth, first_step=3) as stream:
        batches = list(stream)
    sampler = create_small_sampler()
    assert [batch.groups.step for batch in batches] == [3, 4, 5, 6, 7, 8]
    for batch in batches:
        expected = sampler.sample(batch.groups.step, 8)
        np.testing.assert_array_equal(batch.groups.indices, expected.indices)
        np.testing.assert_array_equal(shown(batch), expected.indices)
        assert batch.images.shape == (8, 3, 2, 2, 3)
        assert batch.images.dtype == np.uint8
        assert batch.images.flags.owndata or batch.images.base.flags.owndata
        assert batch.groups.counts["bad_image"] == 0


def test_a_stream_taken_up_later_goes_on_exactly():
    def jitter(images, rng):
        return images + rng.integers(0, 9, images.shape, np.uint8)

    with create_stream(augment_fn=jitter) as stream:
        whole = [batch.images for batch in stream]
    with create_stream(augment_fn=jitter) as stream:
        parts = [next(stream).images for _ in range(2)]
    with create_stream(augment_fn=jitter, first_step=2, num_steps=4) as stream:
        parts += [batch.images for batch in stream]
    np.testing.assert_array_equal(parts, whole)
    assert (whole[0] % 2).any()  # The jitter is there.


@pytest.mark.slow
@pytest.mark.parametrize("depth", [0, 1, 2, 8])
def test_the_state_is_of_what_was_consumed(depth):
    """Stopped after any of 200 batches, with whatever was prepared ahead."""
    whole = [create_small_sampler().sample(step, 8).indices for step in range(200)]
    with create_stream(num_steps=200, depth=depth) as stream:
        for consumed, batch in enumerate(stream, start=1):
            np.testing.assert_array_equal(batch.groups.indices, whole[consumed - 1])
            step = stream.state()["step"]
            assert step == consumed
            with create_stream(
                first_step=step, num_steps=200 - step, depth=depth
            ) as on:
                rest = next(on, None)
            if rest is None:
                assert step == 200
            else:
                np.testing.assert_array_equal(rest.groups.indices, whole[step])
                assert on.state()["step"] == step + 1


def test_each_record_of_a_batch_is_loaded_once():
    asked = []

    def count(indices):
        asked.append(indices)
        return load(indices)

    with create_stream(count, num_steps=1) as stream:
        batch = next(stream)
    (indices,) = asked
    np.testing.assert_array_equal(indices, np.unique(batch.groups.indices))


def test_images_are_nobody_elses_memory():
    kept = np.zeros((SIZE, 2, 2, 3), np.uint8)

    def load_kept(indices):
        return kept[: len(indices)], np.ones(len(indices), bool)

    with create_stream(load_kept) as stream:
        first, second = next(stream), next(stream)
    assert not np.shares_memory(first.images, kept)
    assert not np.shares_memory(first.images, second.images)
    first.images[0] = 7
    assert not first.images[1:].any()
    assert not kept.any()


def test_a_triplet_with_a_bad_image_is_replaced():
    sampled = create_small_sampler().sample(0, 8)
    bad = np.array([sampled.indices[i, 2] for i in (0, 3, 7)])

    def load_some(indices):
        images, _ = load(indices)
        return images, ~np.isin(indices, bad)

    with create_stream(load_some, num_steps=1) as stream:
        batch = next(stream)
    good = ~np.isin(sampled.indices, bad).any(axis=1)
    assert not good[[0, 3, 7]].any()
    assert good[:3].any()
    source = [next(j % 8 for j in range(i, i + 8) if good[j % 8]) for i in range(8)]
    np.testing.assert_array_equal(batch.groups.indices, sampled.indices[source])
    np.testing.assert_array_equal(shown(batch), batch.groups.indices)
    for name in ("attributes", "relevance", "in_class"):
        np.testing.assert_array_equal(
            getattr(batch.groups, name), getattr(sampled, name)[source]
        )
    assert batch.groups.counts["bad_image"] == np.sum(~good)


def test_a_batch_without_a_good_image_is_refused():
    def load_none(indices):
        return load(indices)[0], np.zeros(len(indices), bool)

    with (
        create_stream(load_none) as stream,
        pytest.raises(ValueError, match="Nothing in the batch of step 0"),
    ):
        next(stream)


@pytest.mark.parametrize("depth", [0, 2])
def test_an_error_of_the_thread_reaches_the_consumer(depth):
    calls = []

    def load_twice(indices):
        calls.append(1)
        if len(calls) > 2:
            raise OSError("the disk is gone")
        return load(indices)

    with create_stream(load_twice, depth=depth) as stream:
        next(stream)
        next(stream)
        with pytest.raises(OSError, match="the disk is gone"):
            next(stream)


@pytest.mark.parametrize("depth", [0, 1, 8])
def test_leaving_early_ends_the_thread(depth):
    calls = []

    def load_slowly(indices):
        calls.append(1)
        time.sleep(0.05)
        return load(indices)

    before = threading.active_count()
    start = time.perf_counter()
    with create_stream(load_slowly, num_steps=1000, depth=depth) as stream:
        next(stream)
    assert time.perf_counter() - start < 10.0  # All of them would take 50 s.
    assert threading.active_count() == before
    assert len(calls) < 9
    with pytest.raises(RuntimeError, match="inside `with stream:`"):
        next(stream)


def test_waiting_is_measured():
    def load_slowly(indices):
        time.sleep(0.1)
        return load(indices)

    with create_stream(load_slowly, num_steps=2, depth=0) as stream:
        list(stream)
    slow = stream.wait_seconds
    assert slow >= 0.15  # The clock starts a moment after the loading does.
    with create_stream(num_steps=3) as stream:
        for _ in range(3):
            # What is next has been prepared before it is asked for.
            stream._pending[0].exception(timeout=60)
            next(stream)
    assert stream.wait_seconds < slow


def test_the_thread_runs_ahead_by_the_depth_and_no_more():
    calls = []

    def count(indices):
        calls.append(1)
        return load(indices)

    with create_stream(count, num_steps=100, depth=3) as stream:
        for expected in (3, 4, 5):
            deadline = time.monotonic() + 30
            while len(calls) < expected and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.1)
            assert len(calls) == expected
            next(stream)


def test_numbers_out_of_range_are_refused():
    with pytest.raises(ValueError, match="depth must be at least 0"):
        create_stream(depth=-1)
