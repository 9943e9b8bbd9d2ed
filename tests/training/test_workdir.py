"""Checksums of a run's config and results."""

import pytest

from deeprank_jax import checksums
from deeprank_jax.errors import DataError
from deeprank_jax.training import workdir as workdir_lib


@pytest.fixture
def workdir(tmp_path):
    made = workdir_lib.Workdir(tmp_path)
    for path in (made.config, made.results, made.intervals):
        path.write_text('{"a": 1}')
    made.seal()
    return made


def test_damaged_results_do_not_outlive_the_start_of_training(workdir, warnings_logged):
    workdir.results.write_text('{"a": 7}')
    with pytest.raises(DataError, match=r"results\.json cannot be read"):
        workdir_lib.read_json(workdir.results)
    workdir.remove_damaged()
    workdir.seal()
    assert not workdir.results.exists()
    assert workdir_lib.read_json(workdir.intervals) == {"a": 1}
    assert "results.json: it has changed" in warnings_logged[0]
    assert len(warnings_logged) == 1
    workdir.intervals.write_text('{"a": 7}')
    with pytest.raises(DataError, match=r"intervals\.json cannot be read"):
        workdir_lib.read_json(workdir.intervals)


def test_results_are_unsealed_before_they_are_written(workdir, warnings_logged):
    workdir.unseal()
    assert list(checksums.read_checksums(workdir.path, "run.sha256")) == ["config.json"]
    workdir.results.write_text('{"a": 7}')
    workdir.remove_damaged()
    assert workdir_lib.read_json(workdir.results) == {"a": 7}
    assert warnings_logged == []
    workdir.config.write_text("{}")
    workdir.remove_damaged()
    assert workdir.config.exists()
