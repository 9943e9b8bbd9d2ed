"""A run from a trained network: never worse than its start, nor longer than needed."""

import json
import logging
import os
import shutil
import signal

from helpers import shrunk
import numpy as np
import pytest

from deeprank_jax.errors import CheckpointError
from deeprank_jax.training import checkpoints, experiment, loop

METRIC = "retrieval/map@r"


def validations(workdir):
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    key = f"validation/{METRIC}"
    return {line["step"]: line[key] for line in lines if key in line}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return shrunk.write_images(tmp_path_factory.mktemp("images"), num_classes=12)


@pytest.fixture(scope="module")
def start(images, tmp_path_factory):
    """A trained network."""
    workdir = tmp_path_factory.mktemp("start")
    loop.train(shrunk.create_config(images), workdir)
    return workdir


@pytest.fixture(scope="module")
def validated_lower():
    """Makes each validation lower than the one before, whatever the network."""
    validate = loop._validate

    def validate_lower(run, validation, step, writer, stop):
        class Lower:
            def write(self, step, values):
                values[f"validation/{METRIC}"] = 1.0 - step / 100
                writer.write(step, values)

        metrics = validate(run, validation, step, Lower(), stop)
        return metrics | {METRIC: 1.0 - step / 100}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_validate", validate_lower)
        yield


@pytest.fixture(scope="module")
def spoiled(images, start, validated_lower, tmp_path_factory):
    """A run whose network is best before training, and its log."""
    workdir = tmp_path_factory.mktemp("spoiled")
    config = shrunk.create_config(
        images,
        **{
            "init_from": str(start),
            "num_steps": 20,
            "eval_every": 2,
            "patience": 3,
            "evaluation.best_metric": METRIC,
        },
    )
    messages = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger("absl")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        report = loop.train(config, workdir)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    return config, workdir, report, messages


def test_the_start_is_a_candidate_and_wins_if_training_harms(spoiled, start):
    _, workdir, report, messages = spoiled
    saved = checkpoints.read_network(workdir)
    assert saved.where.name == "0"
    before = checkpoints.read_network(start)
    for name, array in before.arrays.items():
        np.testing.assert_array_equal(saved.arrays[name], array)
    results = json.loads((workdir / "results.json").read_text())
    recall = results["test"]["retrieval"]["map@r"]
    assert recall["model"] == recall["untrained"]
    assert "step 0, the network to start from" in report.read_text(encoding="utf-8")
    assert any("Training did not help" in message for message in messages)


def test_training_ends_once_validation_no_longer_improves(spoiled):
    _, workdir, _, messages = spoiled
    assert sorted(validations(workdir)) == [0, 2, 4, 6]
    ends = [message for message in messages if "Training ends at step 6" in message]
    assert len(ends) == 1


def test_a_run_that_ended_early_is_not_continued(spoiled, tmp_path):
    config, workdir, _, _ = spoiled
    copy = shutil.copytree(workdir, tmp_path / "copy")
    (copy / "results.json").unlink()
    loop.train(config, copy)
    assert sorted(validations(copy)) == [0, 2, 4, 6]
    again = (copy / "results.json").read_text()
    assert again == (workdir / "results.json").read_text()


def test_a_run_stopped_before_its_first_step_validates_the_start_once(
    images, start, tmp_path
):
    config = shrunk.create_config(
        images, **{"init_from": str(start), "num_steps": 4, "eval_every": 2}
    )
    workdir = tmp_path / "run"
    with experiment.create_experiment(config, workdir) as run:
        run.checkpoints.save(0, run.state, run.run_state(0), {"retrieval/recall@1": 2})
    loop.train(config, workdir)
    assert sorted(validations(workdir)) == [2, 4]
    assert checkpoints.read_network(workdir).where.name == "0"


def test_random_weights_are_no_candidate(start):
    assert min(validations(start)) > 0


def test_without_patience_all_steps_are_trained(
    images, start, validated_lower, tmp_path
):
    config = shrunk.create_config(images, **{"init_from": str(start)})
    loop.train(config, tmp_path)
    assert sorted(validations(tmp_path)) == [0, 4, 8]


def test_equally_good_checkpoints_keep_the_earlier(
    images, start, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        loop, "_validate", lambda *_: {"retrieval/recall@1": 1.0, METRIC: 1.0}
    )
    config = shrunk.create_config(
        images,
        **{"init_from": str(start), "num_steps": 12, "eval_every": 2, "patience": 2},
    )
    loop.train(config, tmp_path)
    assert checkpoints.read_network(tmp_path).where.name == "0"
    with experiment.create_experiment(config, tmp_path) as run:
        assert run.checkpoints.best_step() == 0
        assert run.checkpoints.latest_step() == 4


def test_another_config_does_not_take_over_a_start_that_was_measured(
    images, start, tmp_path
):
    config = shrunk.create_config(images, **{"init_from": str(start), "num_steps": 4})
    with experiment.create_experiment(config, tmp_path) as run:
        run.checkpoints.save(0, run.state, run.run_state(0), {"retrieval/recall@1": 1})
    other = shrunk.create_config(
        images, **{"init_from": str(start), "num_steps": 4, "seed": 7}
    )
    with pytest.raises(CheckpointError, match=r"is of another run: config\.seed was 0"):
        loop.train(other, tmp_path)
    steps = [x.name for x in (tmp_path / "checkpoints").iterdir() if x.name.isdigit()]
    assert steps == ["0"]  # At once, not after training.


def test_a_stop_during_the_first_validation_trains_nothing(
    images, start, tmp_path, monkeypatch
):
    def stopped(run, validation, step, writer, stop):
        os.kill(os.getpid(), signal.SIGTERM)

    config = shrunk.create_config(images, **{"init_from": str(start), "num_steps": 4})
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_validate", stopped)
        with pytest.raises(loop.Stopped, match="continue from step 0"):
            loop.train(config, tmp_path)
    loop.train(config, tmp_path)
    assert sorted(validations(tmp_path)) == [0, 4]
