import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeprank_jax.distributed import backend, devices


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", backend._CPU_FLAG),
        ("--other=1", f"--other=1 {backend._CPU_FLAG}"),
        (f"{backend._CPU_FLAG}x", f"{backend._CPU_FLAG}x"),
    ],
)
def test_the_users_flags_are_kept(monkeypatch, before, after):
    monkeypatch.setenv("XLA_FLAGS", before)
    backend.configure_backend()
    assert backend.os.environ["XLA_FLAGS"] == after


SUMS = """
from deeprank_jax.distributed import backend
backend.configure_backend()
import jax, jax.numpy as jnp, numpy as np
x = np.random.default_rng(0).normal(size=(256, 64, 64, 3)).astype(np.float32)
fused = jax.jit(lambda x: jnp.sum(jnp.square(x) + jnp.abs(x), axis=(1, 2, 3)))
first = np.asarray(fused(x))
wide = x.astype(np.float64)
expected = np.sum(wide**2 + np.abs(wide), axis=(1, 2, 3))
np.testing.assert_allclose(first, expected, rtol=1e-5)
for _ in range(20):
    np.testing.assert_array_equal(fused(x), first)
"""


@pytest.mark.slow
def test_sums_on_this_machine_are_right_and_repeat():
    """A canary: fused reductions of XLA:CPU have been seen racing."""
    # As a user has it, not with the flags of the tests.
    env = {name: x for name, x in os.environ.items() if name != "XLA_FLAGS"}
    subprocess.run([sys.executable, "-c", SUMS], env=env, check=True)


def test_a_step_gives_the_old_state_away():
    """So that a state is in memory once."""
    state = devices.replicate(
        {"params": np.arange(32.0).reshape(8, 4), "counters": [np.int32(0), np.ones(3)]}
    )

    def step(state, batch):
        mean = jax.lax.pmean(jnp.mean(batch), devices.DATA_AXIS)
        return jax.tree.map(lambda x: x + mean.astype(x.dtype), state), mean

    old = state
    batch = devices.split_over_devices(np.ones((8, 2), np.float32))
    state, _ = devices.pmap_step(step)(state, batch)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(old))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((state, batch)))
    np.testing.assert_array_equal(state["params"].ravel(), np.arange(1.0, 33.0))


def test_replicated_state_is_whole_on_every_device():
    state = devices.replicate({"w": np.arange(6.0)})
    shards = state["w"].addressable_shards
    assert len(shards) == jax.local_device_count() == 4
    assert all(shard.data.shape == (6,) for shard in shards)
