"""Runs without labels: views, head, refusals, and runs that stop and go on."""

import json

from flax import nnx
from helpers import shrunk
from helpers.stopped import train_until_saved
import jax
import numpy as np
import pytest

from deeprank_jax import models
from deeprank_jax.errors import ConfigError
from deeprank_jax.export import export_run
from deeprank_jax.inference.artifact import read_weights
from deeprank_jax.inference.model import Model
from deeprank_jax.training import checkpoints, experiment, loop, step, tasks

VALUES = {
    "task": "self_supervised",
    "task.head_width": 16,
    "task.head_dim": 8,
    "loss": "nt_xent",
    "loss.temperature": 0.5,
    "data.augment.crop_area": 0.5,
    "model.whitening_power": 0.5,
}


def create_config(images, **values):
    return shrunk.create_config(images, **{**VALUES, **values})


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return shrunk.write_images(tmp_path_factory.mktemp("images"), num_classes=12)


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
    """Returns the folder of a run that never stopped."""
    workdir = tmp_path_factory.mktemp("self_supervised") / "run"
    loop.train(create_config(images), workdir)
    return workdir


def create_network(head=None, **options):
    return models.create_model(
        trunk=dict(name="convnet", widths=(4, 8)),
        image_size=16,
        embedding_dim=6,
        head=head,
        **options,
    )


def test_without_its_head_it_is_the_ranking_network():
    pixels = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3)).astype(np.uint8)
    projected = create_network(models.HeadSizes(3, 7, 4, batch_norm=True))
    plain = create_network()
    heads = nnx.state(projected).pop("head")
    assert len(jax.tree.leaves(heads)) == 2 * 4 + 3 * 2
    for network in (projected, plain):
        network.eval()
    np.testing.assert_array_equal(projected.embed(pixels), plain.embed(pixels))
    projections = np.asarray(projected(pixels))
    assert projections.shape == (5, 4)
    np.testing.assert_allclose(np.linalg.norm(projections, axis=1), 1.0, rtol=1e-5)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_the_head_by_hand(num_layers):
    sizes = models.HeadSizes(num_layers, 7, 4, batch_norm=False)
    network = create_network(sizes)
    x = np.random.default_rng(0).normal(size=(9, 6)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    expected = x * np.sqrt(6)
    for i, linear in enumerate(network.head.linears):
        expected = np.maximum(expected, 0) if i else expected
        expected = expected @ np.asarray(linear.kernel[...])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(network.head(x), expected, rtol=1e-4, atol=1e-5)


def test_batch_norm_of_the_head_normalises_the_batch():
    network = create_network(models.HeadSizes(2, 7, 4, batch_norm=True))
    before = np.asarray(network.head.norms[0].mean[...])
    network.head(np.eye(6, dtype=np.float32))
    assert np.any(np.asarray(network.head.norms[0].mean[...]) != before)


def test_the_views_of_a_batch_differ_and_a_step_repeats_them(images, tmp_path):
    with experiment.create_experiment(create_config(images), tmp_path) as run:
        with run.stream(0) as stream:
            batches = [next(stream) for _ in range(2)]
        with run.stream(1) as stream:
            again = next(stream)
    first = batches[0]
    assert first.images.shape == (8, 2, 16, 16, 3)
    assert not np.any(np.all(first.images[:, 0] == first.images[:, 1], axis=(1, 2, 3)))
    np.testing.assert_array_equal(batches[1].images, again.images)


def test_a_run_is_exported_without_its_head(trained, tmp_path, images):
    saved = checkpoints.read_network(trained)
    assert saved.arrays["params/head/linears/1/kernel/value"].shape == (16, 8)
    assert "model_state/head/norms/0/mean/value" in saved.arrays
    model = Model(export_run(trained, tmp_path / "model", force_threshold=True))
    names = read_weights(model.artifact).keys()
    assert any("embedding" in name for name in names)
    assert not any("head" in name for name in names)
    card = (tmp_path / "model" / "README.md").read_text()
    assert "without labels, by telling images apart" in card
    config = create_config(images)
    records = experiment.create_records(config.data)["test"]
    with experiment.create_reader(config, records) as reader:
        embeddings = model.embed_prepared(reader.load(np.arange(len(records)))[0])
    with np.load(trained / "test_embeddings.npz") as file:
        np.testing.assert_allclose(embeddings, file["embeddings"], atol=1e-5)


def test_the_report_names_loss_and_head(trained):
    page = (trained / "report" / "index.html").read_text(encoding="utf-8")
    assert "NT-Xent, temperature 0.5" in page
    assert "in training alone a head of 16 and 8" in page
    metrics = [
        json.loads(line)
        for line in (trained / "metrics.jsonl").read_text().splitlines()
    ]
    names = {name for line in metrics for name in line}
    assert {"train/positive_distance", "train/effective_rank"} <= names


def test_a_run_that_stopped_ends_with_the_same_bits(images, trained, tmp_path):
    config = create_config(images)
    train_until_saved(config, tmp_path, 4)
    loop.train(config, tmp_path)
    for name in ("results.json", "intervals.json"):
        assert (tmp_path / name).read_bytes() == (trained / name).read_bytes()


def test_a_ranking_run_starts_from_its_network(images, trained, tmp_path):
    options = {"init_from": str(trained), "model.whitening_power": 0.5}
    config = shrunk.create_config(images, **options)
    with experiment.create_experiment(config, tmp_path) as run:
        start = step.network_arrays(run.state)
        assert not any("/head/" in name for name in start)
    saved = checkpoints.read_network(trained).arrays
    for name, array in start.items():
        if name.startswith("params/"):
            np.testing.assert_array_equal(array, saved[name])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"loss": "supcon"}, "supcon.* takes embeddings.*self_supervised.*nt_xent"),
        ({"task": "ranking"}, "nt_xent.* takes projections.*ranking"),
        ({"task": "classification"}, "nt_xent.* takes projections.*classification"),
        ({"batch_size": 1}, r"batch_size=1 leaves .*nt_xent.* give at least 2"),
        (
            {"batch_size": 8, "accumulate_steps": 8},
            r"batch_size=8 in config\.accumulate_steps=8 parts leaves",
        ),
        (
            {
                "data.augment": dict(
                    shift_pixels=0, flip=False, color_jitter=0.0, mixing=0.5,
                    crop_area=1.0,
                )
            },
            r"config\.data\.augment is off.* are equal",
        ),
        ({"task.head_width": 0}, r"config\.task\.head_width must be a whole number"),
        ({"model.ensemble": ({},)}, r'ensemble is for config\.task\.name="ranking"'),
    ],
)  # fmt: skip
def test_a_config_that_does_not_fit_is_refused(images, values, message):
    values = {**VALUES, **values}
    augment = values.pop("data.augment", {})
    values |= {f"data.augment.{name}": value for name, value in augment.items()}
    if values["task"] != "self_supervised":
        values = {x: v for x, v in values.items() if not x.startswith("task.")}
    if values["loss"] != "nt_xent":
        values.pop("loss.temperature")
    config = shrunk.create_config(images, **values)
    with pytest.raises(ConfigError, match=message):
        tasks.create_task(config, experiment.create_run_relevance(config))


def test_a_single_image_is_refused(images):
    config = create_config(images)
    task = tasks.create_task(config, experiment.create_run_relevance(config))
    records = experiment.create_records(config.data)
    one = experiment.dataclasses.replace(
        records["train"], labels=records["train"].labels[:1]
    )
    with pytest.raises(ConfigError, match=r"has a single image.* give at least 2"):
        task.prepare({"train": one})


def test_no_augmentation_but_one_is_enough(images):
    config = create_config(images)
    augment = config.data.augment
    augment.update(shift_pixels=0, flip=False, color_jitter=0.0, crop_area=0.9)
    assert tasks.create_task(config, experiment.create_run_relevance(config))
