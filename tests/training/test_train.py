"""Training from Python, as `deeprank_jax.train` does."""

from helpers import shrunk
import pytest

import deeprank_jax
from deeprank_jax import config as config_lib
from deeprank_jax import errors


def test_a_run_is_trained_and_reports_progress(tmp_path):
    images = shrunk.write_images(tmp_path / "photos", num_classes=12, num_images=6)
    overrides = [f"--config.data.dir={images}", *shrunk.flags()]
    config = config_lib.load_config("folder", overrides)
    reports = []
    result = deeprank_jax.train(
        config, tmp_path / "run", progress=lambda *report: reports.append(report)
    )
    assert reports == [(step, 8, "train") for step in range(1, 9)]
    assert result.workdir == tmp_path / "run"
    assert result.report.is_file()
    assert 0 <= result.results["test"]["retrieval"]["recall@1"]["model"] <= 1
    assert str(tmp_path / "run") in repr(result)


def test_a_config_without_a_name_needs_a_workdir():
    config = config_lib.load_config("folder")
    with pytest.raises(errors.ConfigError, match="workdir must be set"):
        deeprank_jax.train(config)
    with pytest.raises(errors.ConfigError, match="nonsense"):
        deeprank_jax.train("nonsense")
