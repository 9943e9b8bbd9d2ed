import numpy as np
import pytest

from deeprank_jax.sampling import counter_rng
from deeprank_jax.sampling.epochs import ShuffledEpochs


@pytest.mark.parametrize("version", [None, 1, 2])
def test_a_run_goes_on_in_the_orders_that_it_began_with(version):
    epochs = ShuffledEpochs(6, seed=3, shard=0, num_shards=1)
    epochs.continue_as(version)
    rows = epochs.rows(0, 60).reshape(10, 6)
    num_rounds = counter_rng.ROUNDS if version == 1 else None
    expected = [
        counter_rng.permute(3, epoch, np.arange(6), 6, num_rounds=num_rounds)
        for epoch in range(10)
    ]
    np.testing.assert_array_equal(rows, expected)
    assert epochs.version == (1 if version == 1 else 2)
    other = counter_rng.ROUNDS if version != 1 else None
    first = counter_rng.permute(3, 0, np.arange(6), 6, num_rounds=other)
    assert (first != rows[0]).any()
