"""Runs whose embeddings are compared with learned vectors of the classes."""

import json

from helpers import shrunk
import numpy as np
import pytest

from deeprank_jax.errors import ConfigError
from deeprank_jax.export import export_run
from deeprank_jax.inference.model import Model
from deeprank_jax.relevance import SameClass
from deeprank_jax.training import checkpoints, loop, tasks

VALUES = {
    "task": "classification",
    "task.held_out": 0.3,
    "task.features": "embedding",
    "loss": "arcface",
    "loss.sub_centers": 2,
    "model.embedding_dim": 24,
    "model.embedding_norm": True,
}


@pytest.mark.usefixtures("without_pictures")
def test_a_run_learns_and_is_exported_without_the_vectors(tmp_path):
    images = shrunk.write_images(tmp_path / "images", num_classes=12)
    more = {"num_steps": 24, "batch_size": 16, "optimizer.learning_rate": 0.03}
    config = shrunk.create_config(images, **VALUES, **more)
    workdir = tmp_path / "run"
    loop.train(config, workdir)
    results = json.loads((workdir / "results.json").read_text())
    top1 = results["held out"]["classification"]["top1"]
    assert top1["model"] > top1["untrained"] + 0.2
    vectors = checkpoints.read_network(workdir).arrays["params/head/kernel/value"]
    assert len(vectors) == 24
    assert vectors.shape[1] % 2 == 0
    model = Model(export_run(workdir, tmp_path / "model"))
    with np.load(workdir / "test_embeddings.npz") as file:
        assert file["embeddings"].shape[1] == model.embedding_dim == 24


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"task.features": "head"}, "features must be one of trunk, embedding, got"),
        ({"loss": "cross_entropy"}, r"'cross_entropy' takes the logits .*normface"),
        ({"loss": "center"}, r"'center' takes the logits .*features=trunk"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, values, message):
    kept = {k: x for k, x in VALUES.items() if k != "loss.sub_centers"}
    config = shrunk.create_config(tmp_path, **{**kept, **values})
    with pytest.raises(ConfigError, match=message):
        tasks.create_task(config, SameClass())


def test_an_ensemble_is_refused(tmp_path):
    config = shrunk.create_config(tmp_path, **VALUES)
    config.model.ensemble = (shrunk.OTHER,)
    with pytest.raises(
        ConfigError, match=r"ensemble is for .*set it to \(\) for .*arc"
    ):
        tasks.create_task(config, SameClass())
