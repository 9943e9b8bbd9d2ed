"""Published weights fit the networks of all configs that begin with them."""

import importlib
import pathlib

import pytest

from deeprank_jax import models
from deeprank_jax.models.pretrained.weights import load_weights
from deeprank_jax.training import experiment, tasks

ROOT = pathlib.Path(__file__).parents[2]


def load(path):
    module = importlib.import_module(f"deeprank_jax.configs.{path.stem}")
    return module.get_config() if path.stem != "__init__" else None


CONFIGS = {
    path.stem: config
    for path in sorted((ROOT / "configs").glob("*.py"))
    if (config := load(path)) is not None and config.model.weights == "package"
}


def load_published(config):
    """Loads the weights into the network that a config trains, without drawing it."""
    if config.data.image_size is None:
        config.data.image_size = 96
    if config.task.name == "pairs":
        config.task.file = "pairs.csv"
    task = tasks.create_task(config, experiment.create_run_relevance(config))
    return load_weights(
        models.create_abstract(task.create_model),
        weights=config.model.weights,
        layout=config.model.weights_layout,
        trunk=config.model.trunk.name,
    )


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_begins_with_them(name):
    report = load_published(CONFIGS[name].copy_and_resolve_references())
    assert report.num_arrays > 200
    assert not any(
        path.startswith("trunk/") and "/pooling/" not in path
        for path in report.unchanged
    )


def test_configs_of_all_tasks_begin_with_them():
    assert {"folder", "landmarks"} <= CONFIGS.keys()


def test_an_autoencoder_begins_with_them():
    config = CONFIGS["folder"].copy_and_resolve_references()
    config.task = dict(name="autoencoder")
    config.loss = dict(name="reconstruction")
    report = load_published(config)
    assert any(path.startswith("decoder/") for path in report.unchanged)
