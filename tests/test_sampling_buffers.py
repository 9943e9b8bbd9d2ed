from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from deeprank_jax.sampling import counters
from deeprank_jax.sampling.buffers import Buffers, Categories


def random_categories(seed, size, num):
    rng = np.random.default_rng(seed)
    label = np.concatenate([np.arange(num), rng.integers(0, num, size - num)])
    return Categories(
        label=label,
        rate=rng.lognormal(size=size),
        sizes=np.bincount(label, minlength=num),
    )


def check_race(seed, size, capacity, blocks):
    """Compares with the m smallest keys, and what the (m + 1)-th makes of them."""
    categories = random_categories(seed, size, num=4)
    rng = np.random.default_rng(seed)
    seen = rng.permutation(size)[: rng.integers(0, size + 1)]
    variates = counters.exponentials(seed, 0, np.arange(size))
    buffers = Buffers(categories, capacity)
    for block in np.array_split(seen, blocks):
        buffers.ingest(block, variates[block])
    index, inclusion, start = buffers.content()

    key = variates / categories.rate
    for category in range(4):
        own = slice(start[category], start[category + 1])
        rivals = seen[categories.label[seen] == category]
        rivals = rivals[np.argsort(key[rivals])]
        expected = np.sort(rivals[:capacity])
        np.testing.assert_array_equal(index[own], expected)
        tau = key[rivals[capacity]] if len(rivals) > capacity else np.inf
        np.testing.assert_allclose(
            inclusion[own], 1 - np.exp(-categories.rate[expected] * tau)
        )


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
    categories = Categories(
        label=np.repeat(np.arange(num), size),
        rate=np.tile(rate, num),
        sizes=np.full(num, size),
    )
    everyone = np.arange(num * size)
    buffers = Buffers(categories, capacity)
    buffers.ingest(everyone, counters.exponentials(1, 0, everyone))
    index, inclusion, start = buffers.content()
    np.testing.assert_array_equal(start, capacity * np.arange(num + 1))
    record = (index % size).reshape(num, capacity)

    # Each record is there once per reservoir, when weighted.
    lift = (1 / inclusion).reshape(num, capacity)
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
