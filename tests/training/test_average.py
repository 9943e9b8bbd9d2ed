"""The moving average of the weights: kept by the step, evaluated, saved, exported."""

import dataclasses

from helpers import shrunk
import jax
import numpy as np
import pytest

from deeprank_jax.errors import CheckpointError, ConfigError
from deeprank_jax.experiments import evaluate
from deeprank_jax.training import checkpoints, experiment, loop
from deeprank_jax.training.experiment import device_batch

DECAY = 0.7


def create_config(images, **values):
    values = {"optimizer.ema_decay": DECAY, "eval_every": 8, **values}
    return shrunk.create_config(images, **values)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return shrunk.write_images(tmp_path_factory.mktemp("images"), num_classes=12)


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    loop.train(create_config(images), workdir)
    return workdir


def leaves(tree):
    return jax.tree.leaves(jax.device_get(tree))


def test_each_step_moves_the_average_towards_the_weights(images, tmp_path):
    config = create_config(images)
    with experiment.create_experiment(config, tmp_path) as run:
        expected, state = leaves(run.state.params), run.state
        for a, b in zip(expected, leaves(state.averaged), strict=True):
            np.testing.assert_array_equal(a, b)
        with run.stream(0) as stream:
            for _, batch in zip(range(3), stream, strict=False):
                state, _ = run.train_step(state, device_batch(batch))
                expected = [
                    DECAY * old + (1 - DECAY) * new
                    for old, new in zip(expected, leaves(state.params), strict=True)
                ]
        for a, b in zip(expected, leaves(state.averaged), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
        assert any(
            np.abs(a - b).max() > 1e-4
            for a, b in zip(expected, leaves(state.params), strict=True)
        )


def test_a_step_that_is_skipped_leaves_the_average(images, tmp_path):
    config = create_config(images, **{"optimizer.learning_rate": 1e38})
    with experiment.create_experiment(config, tmp_path) as run:
        before = leaves(run.state.averaged)
        state = run.state
        with run.stream(0) as stream:
            for _, batch in zip(range(6), stream, strict=False):
                averaged = leaves(state.averaged)
                state, metrics = run.train_step(state, device_batch(batch))
                if int(metrics["skipped_in_a_row"]):
                    break
        assert int(metrics["skipped_in_a_row"])
        for a, b in zip(averaged, leaves(state.averaged), strict=True):
            np.testing.assert_array_equal(a, b)
        assert len(before) == len(averaged)


def test_it_is_evaluated_and_loaded(images, trained):
    config = create_config(images)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)).astype(np.uint8)
    with experiment.create_experiment(config, trained) as run:
        run.restore(8)
        embeddings = run.embed(run.state, pixels)
        arrays = checkpoints.read_network(trained).arrays
        params = leaves(run.state.averaged)
    saved = [arrays[key] for key in arrays if key.startswith("params/")]
    for a, b in zip(
        sorted(map(np.sum, saved)), sorted(map(np.sum, params)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    loaded = evaluate.load_run(trained).embed(pixels)
    np.testing.assert_allclose(loaded, embeddings, atol=1e-5)
    # The weights of the last step give other embeddings.
    raw = create_config(images, **{"optimizer.ema_decay": 0.0})
    with experiment.create_experiment(raw, trained / "raw") as run_raw:
        assert not leaves(run_raw.state.averaged)
    with experiment.create_experiment(config, trained) as run:
        run.restore(8)
        bare = dataclasses.replace(run.state, averaged=run.state.params)
        assert np.abs(run.embed(bare, pixels) - embeddings).max() > 1e-4


def test_a_run_without_it_is_not_continued_with_it(images, trained):
    config = create_config(images, **{"optimizer.ema_decay": 0.0, "num_steps": 12})
    with pytest.raises(CheckpointError, match="holds another model or optimizer"):
        loop.train(config, trained)


def test_a_decay_out_of_range_is_refused(images, tmp_path):
    with pytest.raises(ConfigError, match=r"optimizer\.ema_decay=1\.0 must be"):
        loop.train(create_config(images, **{"optimizer.ema_decay": 1.0}), tmp_path)
