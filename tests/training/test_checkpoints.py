import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeprank_jax.distributed import devices
from deeprank_jax.training import checkpoints


def create_state(seed, width=3):
    key = jax.random.key(seed)
    return devices.replicate(
        {
            "params": {"kernel": jax.random.normal(key, (width, 2))},
            "counts": (jnp.int32(seed), jnp.zeros(())),
        }
    )


@pytest.fixture
def opened(tmp_path):
    saved = checkpoints.Checkpoints(tmp_path / "here", best_metric="recall")
    yield saved
    saved.close()


def test_what_is_saved_comes_back_bit_for_bit(opened):
    state = create_state(1)
    opened.save(1, state, {"seed": 7, "step": 1})
    opened.wait()
    restored, run_state = opened.restore(create_state(2), 1)
    assert run_state == {"seed": 7, "step": 1}
    for ours, theirs in zip(
        jax.tree.leaves(state), jax.tree.leaves(restored), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.sharding == theirs.sharding
        assert ours.dtype == theirs.dtype


def test_the_best_and_the_last_are_kept(opened):
    for step, recall in [(1, 0.3), (2, 0.5), (3, 0.4), (4, None), (5, 0.2), (6, None)]:
        metrics = None if recall is None else {"recall": recall}
        opened.save(step, create_state(step), {}, metrics)
        opened.wait()
    names = {path.name for path in opened.directory.iterdir()}
    assert names == {"2", "6"}
    assert (opened.best_step(), opened.latest_step()) == (2, 6)
    reopened = checkpoints.Checkpoints(opened.directory, best_metric="recall")
    assert (reopened.best_step(), reopened.latest_step()) == (2, 6)
    reopened.close()


def test_nothing_saved_is_nothing_found(opened):
    assert opened.latest_step() is None
    assert opened.best_step() is None


@pytest.mark.parametrize("other", ["shape", "name"])
def test_another_model_is_refused(opened, other):
    opened.save(1, create_state(1), {})
    opened.wait()
    template = create_state(1, width=4) if other == "shape" else {"kernel": jnp.ones(2)}
    with pytest.raises(checkpoints.CheckpointError) as error:
        opened.restore(template, 1)
    assert "another model" in str(error.value)
    assert ("params/kernel" if other == "shape" else "missing") in str(error.value)
    assert "--workdir" in str(error.value)
