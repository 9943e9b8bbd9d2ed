"""Two stages by one command."""

import json
import logging
import pathlib
import shutil

from helpers import shrunk
from helpers.stopped import train_until_saved
import pytest

from deeprank_jax.config import load_config, read_run_config
from deeprank_jax.errors import ConfigError
from deeprank_jax.experiments import compare_runs, runs
from deeprank_jax.training import first_stage, loop
from tools.faults.forked import plain_reports

FIRST = """
from deeprank_jax.configs import base


def get_config():
    config = base.get_config()
    config.task = dict(name="classification", held_out=0.3)
    config.loss = dict(name="cross_entropy")
    config.num_steps, config.batch_size, config.eval_every = 6, 16, 3
    config.schedule.warmup_steps = 1
    config.optimizer.learning_rate = 0.03
    config.model.paths = ()
    config.evaluation.best_metric = "classification/top1"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with images and the config of a first stage."""
    folder = tmp_path_factory.mktemp("stages")
    shrunk.write_images(folder / "images", num_classes=6)
    (folder / "first.py").write_text(FIRST + "    return config\n")
    return folder


def create_config(folder, **values):
    values = {"first_stage": str(folder / "first.py"), **values}
    return shrunk.create_config(folder / "images", **values)


def results_of(workdir):
    return json.loads((workdir / "results.json").read_text())


@pytest.fixture(scope="module")
def trained(folder):
    """A run of both stages."""
    with plain_reports():
        loop.train(create_config(folder), folder / "run")
    return folder / "run"


def test_it_ends_as_a_run_that_starts_from_the_first(folder, trained, tmp_path):
    config = create_config(
        folder, first_stage="", init_from=str(trained / "first_stage")
    )
    with plain_reports():
        loop.train(config, tmp_path)
    assert results_of(trained) == results_of(tmp_path)
    assert "held out" in results_of(trained / "first_stage")


def test_a_run_goes_on_in_another_place_and_keeps_its_first_stage(
    folder, trained, tmp_path, caplog
):
    moved = tmp_path / "moved"
    shutil.copytree(trained, moved)
    first = (moved / "first_stage" / "metrics.jsonl").read_bytes()
    with plain_reports(), caplog.at_level(logging.INFO, "absl"):
        loop.train(create_config(folder, num_steps=10), moved)
    assert (moved / "first_stage" / "metrics.jsonl").read_bytes() == first
    first_of_two = f"First of two stages: {folder / 'first.py'}, in {moved}"
    assert first_of_two in caplog.text
    assert f"{moved / 'first_stage'} is finished" in caplog.text
    assert "Loaded: the trunk" in caplog.text
    assert f"Continuing from step 8 of {moved}" in caplog.text


def test_a_stop_in_the_first_stage_goes_on_there(folder, trained, tmp_path, caplog):
    config = create_config(folder)
    with plain_reports(), caplog.at_level(logging.INFO, "absl"):
        train_until_saved(config, tmp_path, 3)
        assert not (tmp_path / "config.json").exists()
        loop.train(config, tmp_path)
    assert f"Continuing from step 3 of {tmp_path / 'first_stage'}" in caplog.text
    assert results_of(tmp_path) == results_of(trained)


def test_runs_in_other_folders_do_not_differ_by_these(folder, trained, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(trained, moved)
    saved = json.loads((moved / "config.json").read_text())
    assert saved["init_from"] == ""
    assert read_run_config(moved).init_from == str(moved / "first_stage")
    assert compare_runs.compare_runs([trained, moved]).config == {}
    config = create_config(folder)
    runs.Runs(pathlib.Path("plan"), tmp_path)._check_same_config(moved, config)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("loss.margn", 1.0, r"config\.loss\.margn is not an option"),
        ("evaluation.best_metric", "retrieval/mpa", r"config\.evaluation\.best_metric"),
        ("accumulate_steps", 3, r"config\.accumulate_steps=3 does not divide"),
    ],
)
def test_the_second_stage_is_checked_before_the_first(
    folder, tmp_path, key, value, message
):
    config = create_config(folder)
    with config.unlocked():
        config.update_from_flattened_dict({key: value})
    with pytest.raises(ConfigError, match=message):
        loop.train(config, tmp_path)
    assert not (tmp_path / "first_stage").exists()


def test_an_error_of_the_first_stage_says_so(folder, tmp_path):
    path = tmp_path / "first.py"
    path.write_text(FIRST + "    config.batch_size = 7\n    return config\n")
    config = create_config(folder, first_stage=str(path))
    with pytest.raises(
        ConfigError, match=r"^First stage, .*first\.py: config\.batch_s"
    ):
        loop.train(config, tmp_path / "run")


def test_the_first_stage_has_seed_trunk_and_data_of_the_second(folder):
    config = create_config(folder, seed=3)
    config.data.source.test_share = 0.4
    config.data.fit, config.model.remat = "pad", True
    with config.unlocked():
        config.plugins = ("json",)
    config.optimizer.learning_rate = 0.5
    first = first_stage.create_first_config(config)
    assert first.seed == 3
    assert first.model.trunk.to_dict() == config.model.trunk.to_dict()
    assert first.data.image_size == config.data.image_size
    assert (first.data.fit, first.model.remat) == ("pad", True)
    assert first.plugins == ("json",)
    assert first.data.source.to_dict() == config.data.source.to_dict()
    assert first.data.dir == config.data.dir
    assert (first.num_steps, first.optimizer.learning_rate) == (6, 0.03)
    first.model.trunk.widths = (1, 1)
    assert config.model.trunk.widths != (1, 1)


def test_data_of_another_kind_are_those_of_the_first_stage(folder):
    config = create_config(folder, first_stage="pretrain_deep_ranking")
    first = first_stage.create_first_config(config)
    alone = load_config("pretrain_deep_ranking")
    assert first.data.source.to_dict() == alone.data.source.to_dict()
    assert first.data.dir == alone.data.dir


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"init_from": "runs/first"},
            r"config\.first_stage=.* and config\.init_from='",
        ),
        ({"model.weights": "package"}, r"config\.model\.weights='package' both name"),
        ({"first_stage": "pretrain_emojis"}, r"^config\.first_stage=.* \(did you mean"),
    ],
)
def test_what_cannot_be_is_refused_before_training(folder, tmp_path, values, message):
    with pytest.raises(ConfigError, match=message):
        loop.train(create_config(folder, **values), tmp_path / "run")
    assert not (tmp_path / "run" / "first_stage").exists()


def test_a_third_stage_is_refused(folder, tmp_path):
    path = tmp_path / "nested.py"
    path.write_text(
        FIRST + f"    config.first_stage = {str(path)!r}\n    return config"
    )
    with pytest.raises(ConfigError, match=r"has a first stage itself"):
        loop.train(create_config(folder, first_stage=str(path)), tmp_path / "run")
