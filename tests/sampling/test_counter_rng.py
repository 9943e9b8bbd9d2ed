import math

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
from scipy import stats

from deeprank_jax.sampling import counter_rng


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**40),
    pass_index=st.integers(0, 1000),
    size=st.integers(1, 3000),
)
def test_a_pass_shows_every_record_once(seed, pass_index, size):
    order = counter_rng.permute(seed, pass_index, np.arange(size), size)
    np.testing.assert_array_equal(np.sort(order), np.arange(size))


@pytest.mark.parametrize("size", [2, 3, 7, 101, 1023, 1024, 1025, 99_991])
def test_odd_sizes_are_permuted_too(size):
    order = counter_rng.permute(5, 2, np.arange(size), size)
    np.testing.assert_array_equal(np.sort(order), np.arange(size))


def test_an_order_is_shuffled_and_differs_by_pass_and_seed():
    position = np.arange(1000)
    orders = [
        counter_rng.permute(*key, position, 1000) for key in [(0, 0), (0, 1), (1, 0)]
    ]
    for order in orders:
        assert abs(np.corrcoef(order, position)[0, 1]) < 0.1
        assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 0.1
    for one, other in [(0, 1), (0, 2), (1, 2)]:
        assert np.mean(orders[one] == orders[other]) < 0.01


@pytest.mark.slow
def test_every_record_reaches_every_position():
    """Over many passes a record's position is uniform."""
    size = 13
    orders = np.stack(
        [counter_rng.permute(3, p, np.arange(size), size) for p in range(2600)]
    )
    for position in range(size):
        counts = np.bincount(orders[:, position], minlength=size)
        assert stats.chisquare(counts).pvalue > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(("size", "num"), [(5, 5), (6, 6), (7, 2), (12, 2)])
def test_every_order_of_few_records_is_as_frequent(size, num):
    """Orders of the records at the first `num` positions."""
    position = np.arange(num)
    seeds = range(max(2400, 10 * math.perm(size, num)))
    orders = [counter_rng.permute(seed, 0, position, size) for seed in seeds]
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(counts) == math.perm(size, num)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_variates_are_exponential_and_independent_between_passes():
    index = np.arange(100_000)
    first, second = (counter_rng.exponentials(7, p, index) for p in (0, 1))
    assert stats.kstest(first, "expon").pvalue > 1e-3
    assert stats.kstest(second, "expon").pvalue > 1e-3
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.015
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.015
    assert len(np.unique(first)) == len(first)


def test_a_variate_depends_on_its_record_alone():
    index = np.array([5, 900, 17])
    everyone = counter_rng.exponentials(1, 4, np.arange(1000))
    np.testing.assert_array_equal(
        counter_rng.exponentials(1, 4, index), everyone[index]
    )
