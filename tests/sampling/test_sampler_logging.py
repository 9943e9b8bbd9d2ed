"""What the sampler draws can be watched: the names in metrics.jsonl and TensorBoard."""

import csv
import re

from helpers import shrunk, tensorboard_events
import numpy as np
import pytest

from deeprank_jax import data, progress
from deeprank_jax.configs import base
from deeprank_jax.sampling.reservoir import draws
from deeprank_jax.training import final_report, loop, metrics_writer
from deeprank_jax.training.experiment import create_experiment

COUNTS = {
    "train/sampler_negatives/in_class",
    "train/sampler_negatives/out_of_class",
    *(f"train/sampler_failures/{cause}" for cause in (*draws.CAUSES, "bad_image")),
}
BUFFERS = {f"train/buffers/{name}" for name in ("fill", "age", "anchors")}


@pytest.fixture
def config(tmp_path):
    """A run whose buffers hold half of the 21 or so records of each category."""
    root = tmp_path / "images"
    for coarse in ("warm", "cold"):
        shrunk.write_images(root / coarse, num_classes=4, num_images=12)
    config = shrunk.shrink(base.get_config(), num_steps=4)
    config.data.dir = str(root)
    config.triplets.category_level = 0
    config.sampler.capacity = 8
    config.sampler.records_per_step = 16
    config.loss.miner = dict(name="sampled")
    return config


def logged(workdir):
    """Returns the entries of training, each of which must be in TensorBoard, too."""
    entries = [e for e in metrics_writer.read_metrics(workdir) if "train/loss" in e]
    events = {
        (tag, step): value
        for tag, step, value in tensorboard_events.read_scalars(workdir / "tensorboard")
    }
    for entry in entries:
        for name, value in entry.items():
            if name.startswith("train/"):
                assert events[name, entry["step"]] == pytest.approx(value)
    assert len(entries) == 2
    return entries


def of_sampler(entry):
    return {n for n in entry if n.startswith(("train/sampler", "train/buffers"))}


def test_negatives_failures_and_buffers_are_logged_and_reported(
    config, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(progress, "_is_terminal", lambda: True)
    with caplog.at_level("INFO"):
        page = loop.train(config, tmp_path / "run").read_text()
    # Words beside the bar are explained, once; levels have plain names.
    for words in (
        "stall is the share of the time in which training waited for images",
        "active the share of triplets whose loss is above 0",
    ):
        assert caplog.text.count(words) == 1
    assert "level_" not in page
    assert "same outer folder" in page
    for entry in logged(tmp_path / "run"):
        assert of_sampler(entry) == COUNTS | BUFFERS
        kinds = "train/sampler_negatives/{}_class"
        kinds = [entry[kinds.format(kind)] for kind in ("in", "out_of")]
        assert sum(kinds) == config.batch_size
        assert entry["train/buffers/fill"] == 1.0
        assert np.isfinite(entry["train/buffers/age"])
        assert entry["train/buffers/age"] > 0
    assert len(re.findall(r'class="triplet"', page)) == 4 * 6
    assert "buffers/age" in page


def test_what_is_shown_of_a_step_is_what_it_trained_on(config, tmp_path):
    with create_experiment(config, tmp_path / "run") as experiment:
        drawn = final_report._draw_again(experiment, None)
        steps = drawn.steps[drawn.shown()].tolist()
        assert steps == np.repeat(np.arange(4), 6).tolist()
        for step in range(4):
            trained = experiment.sampler.sample(step, config.batch_size)
            rows = np.flatnonzero(drawn.steps == step)[: config.batch_size]
            np.testing.assert_array_equal(drawn.indices[rows], trained.indices)
            np.testing.assert_array_equal(drawn.in_class[rows, 0], trained.in_class)
            np.testing.assert_array_equal(drawn.relevance[rows], trained.relevance)


def test_a_file_of_triplets_has_no_buffers_to_log(config, tmp_path):
    records = data.create_records(config.data)["train"]
    path = tmp_path / "triplets.csv"
    rng = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("anchor", "positive", "negative"))
        for _ in range(40):
            row = rng.choice(len(records), 3, replace=False)
            writer.writerow([records.describe(int(i)) for i in row])
    config.sampler = dict(name="file", file=str(path))
    page = loop.train(config, tmp_path / "run").read_text()
    for entry in logged(tmp_path / "run"):
        assert of_sampler(entry) == COUNTS
    assert "<h2>Sampler</h2>" in page
    # A file has no share that could be configured.
    assert "configured</th>" not in page
    assert "buffers/" not in page
