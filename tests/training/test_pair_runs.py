"""Whole runs on groups of several positives, with a loss on all pairs."""

import json

from helpers import shrunk
from helpers.stopped import train_until_saved
import numpy as np
import pytest

from deeprank_jax.configs import base
from deeprank_jax.errors import ConfigError
from deeprank_jax.training import checkpoints, experiment, loop

# As many embeddings as two and a half of the batches, each of eight groups of four.
MEMORY = 80


def create_config(tmp_path, **loss):
    config = shrunk.shrink(base.get_config(), **{"eval_every": 8})
    images = tmp_path / "images"
    if not images.exists():
        shrunk.write_images(images)
    config.data.dir = str(images)
    config.sampler.update(positives_per_anchor=2, negatives_per_anchor=1)
    config.loss = {"name": "multi_similarity", "memory_size": MEMORY, **loss}
    return config


def losses_of(workdir):
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["train/loss"] for line in lines if "train/loss" in line}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that never stopped."""
    folder = tmp_path_factory.mktemp("pairs")
    report = loop.train(create_config(folder), folder / "whole")
    return folder, report


def test_it_ends_in_a_report_of_its_groups(whole):
    _, report = whole
    page = report.read_text(encoding="utf-8")
    assert "groups of 4 images" in page
    assert "multi-similarity" in page
    triplet = page[page.index('<div class="triplet">') :]
    triplet = triplet[: triplet.index('<div class="gap">')]
    assert triplet.count(">positive<") == 2
    assert triplet.count(">negative<") == 1


def test_the_memory_is_saved_and_filled_by_all_devices(whole):
    folder, _ = whole
    with experiment.create_experiment(create_config(folder), folder / "whole") as run:
        run.restore(8)
        memory = run.state.memory
        assert memory["embeddings"].shape == (MEMORY, 8)
        assert int(memory["filled"]) == MEMORY
        lengths = np.linalg.norm(memory["embeddings"], axis=1)
        np.testing.assert_allclose(lengths, 1.0, rtol=1e-5)
        expected = run.sampler.sample(7, 8).attributes.reshape(32, -1)
        np.testing.assert_array_equal(memory["attributes"][:32], expected)


def test_a_run_that_stopped_ends_with_the_same_bits(whole):
    folder, _ = whole
    config = create_config(folder)

    train_until_saved(config, folder / "stopped", 4)
    loop.train(config, folder / "stopped")
    assert losses_of(folder / "stopped") == losses_of(folder / "whole")
    arrays = [checkpoints.read_network(folder / x).arrays for x in ("whole", "stopped")]
    assert arrays[0].keys() == arrays[1].keys()
    for name, array in arrays[0].items():
        np.testing.assert_array_equal(array, arrays[1][name])


def test_a_loss_of_triplets_needs_a_negative(tmp_path):
    config = create_config(tmp_path)
    config.loss = dict(name="triplet_hinge")
    config.sampler.negatives_per_anchor = 0
    message = r"config\.sampler\.negatives_per_anchor must be at least 1 for a loss of"
    with pytest.raises(ConfigError, match=message):
        loop.train(config, tmp_path / "run")


def test_a_loss_of_triplets_takes_larger_groups(tmp_path):
    config = create_config(tmp_path)
    config.loss = dict(name="triplet_hinge", symmetric=True)
    config.num_steps = config.eval_every = 2
    config.schedule.warmup_steps = 1
    loop.train(config, tmp_path / "run")
    assert np.isfinite(list(losses_of(tmp_path / "run").values())).all()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "positives_per_anchor",
            0,
            r"config\.sampler\.positives_per_anchor must be at",
        ),
        ("min_positive_relevance", -1.0, r"config\.sampler\.min_positive_relevance mu"),
    ],
)
def test_options_out_of_range_name_their_key(tmp_path, key, value, message):
    config = create_config(tmp_path)
    config.sampler[key] = value
    with pytest.raises(ConfigError, match=message):
        loop.train(config, tmp_path / "run")
