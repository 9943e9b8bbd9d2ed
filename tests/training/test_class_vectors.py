"""Runs whose loss learns a vector per class."""

import json

from helpers import shrunk
import numpy as np
import pytest

from deeprank_jax import models
from deeprank_jax.data import create_records
from deeprank_jax.errors import ConfigError
from deeprank_jax.export import export_run
from deeprank_jax.inference.model import Model
from deeprank_jax.training import checkpoints, experiment, loop, tasks

VALUES = {
    "task": "classification",
    "task.held_out": 0.3,
    "evaluation.best_metric": "classification/top1",
    "model.whitening_power": 0.5,
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return shrunk.write_images(tmp_path_factory.mktemp("images"), num_classes=12)


def test_outputs_are_cosines_of_features_and_class_vectors():
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3)).astype(np.uint8)
    model = models.create_classifier(
        trunk=dict(name="convnet", widths=(4, 8)),
        image_size=16,
        num_classes=3,
        outputs="cosines",
    )
    model.eval()
    features = np.asarray(model.features(images))
    vectors = np.asarray(model.head.kernel[...])
    lengths = np.linalg.norm(features, axis=1)[:, None] * np.linalg.norm(
        vectors, axis=0
    )
    assert lengths.min() > 0
    np.testing.assert_allclose(model(images), features @ vectors / lengths, atol=1e-5)
    assert model.head.bias is None


def test_a_run_learns_class_vectors_and_is_exported_without_them(images, tmp_path):
    values = {**VALUES, "loss": "proxy_anchor", "num_steps": 24, "batch_size": 16}
    config = shrunk.create_config(
        images, **{**values, "optimizer.learning_rate": 0.03, "eval_every": 12}
    )
    workdir = tmp_path / "run"
    loop.train(config, workdir)
    results = json.loads((workdir / "results.json").read_text())
    top1 = results["held out"]["classification"]["top1"]
    assert top1["model"] > top1["untrained"] + 0.2
    assert "proxy-anchor" in (workdir / "report" / "index.html").read_text()
    saved = checkpoints.read_network(workdir)
    num_classes = len(np.unique(create_records(config.data)["train"].labels[:, -1]))
    assert saved.arrays["params/head/kernel/value"].shape[1] == num_classes
    assert "params/head/bias/value" not in saved.arrays
    model = Model(export_run(workdir, tmp_path / "model"))
    assert model.artifact.info["whitened"]
    assert "whitened" in (tmp_path / "model" / "README.md").read_text()
    records = create_records(config.data)["test"]
    with experiment.create_reader(config, records) as reader:
        embeddings = model.embed_prepared(reader.load(np.arange(len(records)))[0])
    with np.load(workdir / "test_embeddings.npz") as file:
        np.testing.assert_allclose(embeddings, file["embeddings"], atol=1e-5)


@pytest.mark.parametrize(
    ("task", "loss", "message"),
    [
        ("ranking", "arcface", "arcface.* takes cosines"),
        ("classification", "supcon", "supcon.* takes embeddings"),
    ],
)
def test_a_loss_of_another_task_is_refused(images, task, loss, message):
    config = shrunk.create_config(images, task=task, loss=loss)
    with pytest.raises(ConfigError, match=message):
        tasks.create_task(config, experiment.create_run_relevance(config))
