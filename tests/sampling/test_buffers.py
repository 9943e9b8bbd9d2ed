from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from deeprank_jax.sampling import counter_rng
from deeprank_jax.sampling.reservoir.buffers import Buffers, KeyedRecords


def race(seed, index, label, rate, position=None):
    variates = counter_rng.exponentials(seed, 0, index)
    return KeyedRecords(
        index=index,
        label=label[index],
        key=variates / rate[index],
        rate=rate[index],
        position=index if position is None else position,
    )


def check_race(seed, size, capacity, blocks):
    """Compares with the m smallest keys, and what the (m + 1)-th makes of them."""
    rng = np.random.default_rng(seed)
    label = np.concatenate([np.arange(4), rng.integers(0, 4, size - 4)])
    rate = rng.lognormal(size=size)
    seen = rng.permutation(size)[: rng.integers(0, size + 1)]
    buffers = Buffers(np.bincount(label), capacity)
    came_by = rng.permutation(len(seen))
    for rows in np.array_split(np.arange(len(seen)), blocks):
        buffers.ingest(race(seed, seen[rows], label, rate, came_by[rows]))
    content = buffers.content()

    key = counter_rng.exponentials(seed, 0, np.arange(size)) / rate
    held = 0
    for category in range(4):
        own = content.label == category
        rivals = seen[label[seen] == category]
        rivals = rivals[np.argsort(key[rivals])]
        expected = np.sort(rivals[:capacity])
        held += len(expected)
        np.testing.assert_array_equal(content.index[own], expected)
        tau = key[rivals[capacity]] if len(rivals) > capacity else np.inf
        np.testing.assert_allclose(
            content.inclusion[own], 1 - np.exp(-rate[expected] * tau)
        )
    when = dict(zip(seen.tolist(), came_by.tolist(), strict=True))
    assert content.position.tolist() == [when[i] for i in content.index.tolist()]
    assert content.fill == held / np.minimum(np.bincount(label), capacity).sum()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    size=st.integers(6, 200),
    capacity=st.integers(1, 40),
    blocks=st.integers(1, 9),
)
def test_a_buffer_holds_the_first_of_the_race_in_whatever_order(
    seed, size, capacity, blocks
):
    check_race(seed, size, capacity, blocks)


@pytest.mark.parametrize("seed", range(20))
def test_a_buffer_that_was_renewed_often_holds_the_first_of_the_race(seed):
    check_race(seed, size=1000, capacity=10, blocks=400)


def test_one_over_the_inclusion_makes_up_for_small_buffers():
    """10,000 reservoirs: 140 records of lognormal rate, 20 of them kept."""
    num, size, capacity = 10_000, 140, 20
    rate = np.random.default_rng(1).lognormal(size=size)
    everyone = np.arange(num * size)
    buffers = Buffers(np.full(num, size), capacity)
    buffers.ingest(
        race(1, everyone, np.repeat(np.arange(num), size), np.tile(rate, num))
    )
    content = buffers.content()
    np.testing.assert_array_equal(np.bincount(content.label), capacity)
    record = (content.index % size).reshape(num, capacity)

    # Each record is there once per reservoir, when weighted.
    lift = (1 / content.inclusion).reshape(num, capacity)
    presence = np.zeros((num, size))
    np.put_along_axis(presence, record, lift, axis=1)
    error = (presence.mean(axis=0) - 1) / (presence.std(axis=0) / np.sqrt(num))
    assert np.abs(error).max() < 5

    # And the law of the anchor, eq. (6), is that of the whole category.
    def distance(weight):
        law = np.zeros((num, size))
        weight = weight / weight.sum(axis=1, keepdims=True)
        np.put_along_axis(law, record, weight, axis=1)
        return 0.5 * np.abs(law.mean(axis=0) - rate / rate.sum()).sum()

    assert distance(lift * rate[record]) < 0.02
    assert distance(np.ones_like(lift)) > 0.05  # The uncorrected rule.
