"""What the loop must not do: compile again, or wait for what is not on the devices."""

import collections

from helpers import shrunk
import jax
from jax import monitoring
import pytest

from deeprank_jax.configs import base
from deeprank_jax.distributed import backend
from deeprank_jax.errors import ConfigError
from deeprank_jax.training import experiment, loop

_COMPILED = "/jax/core/compile/backend_compile_duration"


@pytest.fixture
def config(tmp_path):
    config = shrunk.shrink(base.get_config(), **{"eval_every": 8})
    config.data.dir = str(shrunk.write_images(tmp_path / "images"))
    return config


@pytest.fixture
def compilations():
    """Counts what is compiled, by the step at which it is."""
    counts = collections.Counter()
    step = [0]

    def count(event, seconds, **_):
        if event == _COMPILED:
            counts[step[0]] += 1

    monitoring.register_event_duration_secs_listener(count)
    yield counts, step
    monitoring.unregister_event_duration_listener(count)


def test_nothing_is_compiled_after_the_second_step(
    config, tmp_path, monkeypatch, compilations
):
    counts, at = compilations
    create = experiment.create_experiment

    def watched(*args):
        parts = create(*args)
        step_fn = parts.train_step

        def counted(state, batch):
            at[0] += 1
            return step_fn(state, batch)

        parts.train_step = counted
        return parts

    monkeypatch.setattr(loop, "create_experiment", watched)
    # The steps alone: saving and evaluating have their own programs, once.
    config.checkpoint_every = 8
    loop.train(config, tmp_path / "run")
    assert at[0] == 8
    assert counts[1] > 0
    assert [counts[step] for step in range(3, 8)] == [0] * 5


def test_a_batch_that_is_not_on_the_devices_is_noticed(config, tmp_path, monkeypatch):
    def not_moved(batch, teacher):
        assert teacher is None
        arrays = {"images": batch.images, **batch.groups.arrays()}
        return jax.tree.map(lambda x: x.reshape(4, -1, *x.shape[1:]), arrays)

    monkeypatch.setattr(loop, "device_batch", not_moved)
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        loop.train(config, tmp_path / "run")


@pytest.mark.parametrize("chosen", [None, "mine"])
def test_what_is_compiled_is_kept_where_the_user_says(tmp_path, monkeypatch, chosen):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = jax.config.jax_compilation_cache_dir
    limit = jax.config.jax_compilation_cache_max_size
    try:
        jax.config.update("jax_compilation_cache_dir", chosen)
        backend.keep_compiled()
        expected = chosen or str(tmp_path / "deeprank_jax" / "xla")
        assert jax.config.jax_compilation_cache_dir == expected
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
        jax.config.update("jax_compilation_cache_max_size", limit)


def test_a_metric_that_validation_lacks_is_an_error_of_the_config():
    loop._check_measured("a/b", {"a/b": 1.0})
    with pytest.raises(
        ConfigError, match=r"best_metric='a/c' cannot be .* choose .* a/b"
    ):
        loop._check_measured("a/c", {"a/b": 1.0})


def test_a_checkpoint_knows_the_log_before_it(config, tmp_path, warnings_logged):
    loop.train(config, tmp_path / "run")
    path = tmp_path / "run" / "metrics.jsonl"
    noticed = lambda: [x for x in warnings_logged if f"{path} has changed" in x]
    (tmp_path / "run" / "results.json").unlink()  # To be measured again.
    loop.train(config, tmp_path / "run")
    assert noticed() == []
    path.write_text(path.read_text().replace("1", "2", 1))
    config.num_steps = 10
    loop.train(config, tmp_path / "run")
    assert len(noticed()) == 1
