"""`deeprank compare-runs`: config keys that differ, metrics, the best of each."""

import csv
import json
import shutil

import numpy as np
import pytest

from deeprank_jax.cli import compare_runs as compare_runs_command
from deeprank_jax.cli.__main__ import main
from deeprank_jax.config import load_config
from deeprank_jax.errors import DataError, UserError
from deeprank_jax.evaluation import bootstrap
from deeprank_jax.experiments.compare_runs import Cell, compare_runs
from deeprank_jax.training.workdir import Workdir


def write_run(folder, recall, *, num=50, **changes):
    """Writes the files of a finished run."""
    folder.mkdir(parents=True)
    config = load_config("folder")
    config.update_from_flattened_dict(changes)
    (folder / "config.json").write_text(config.to_json())
    values = {
        "recall@1": {"model": recall, "pixels": 0.9},
        "num_queries": {"model": num, "pixels": num},
    }
    ends = {"recall@1": {"model": {"low": recall - 0.1, "high": recall + 0.1}}}
    for name, metrics in (("results", values), ("intervals", ends)):
        content = {x: {"retrieval": metrics} for x in ("validation", "test")}
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def runs(tmp_path):
    return [
        write_run(tmp_path / "a", 0.5, batch_size=32),
        write_run(tmp_path / "b", 0.75, num=60, batch_size=64),
        write_run(tmp_path / "c", 0.75, batch_size=64),
    ]


def test_only_keys_that_differ_are_listed(runs):
    comparison = compare_runs(runs)
    assert comparison.names == ["a", "b", "c"]
    assert comparison.config == {"batch_size": [32, 64, 64]}
    assert compare_runs(runs[1:]).config == {}


def test_the_test_split_comes_first_and_the_best_are_marked(runs):
    metrics = compare_runs(runs).metrics
    assert [split for split, _ in metrics] == ["test"] * 2 + ["validation"] * 2
    cells = metrics["test", "retrieval/recall@1"]
    assert cells[0] == Cell(value=0.5, low=0.4, high=0.6)
    assert [cell.is_best for cell in cells] == [False, True, True]
    counts = metrics["test", "retrieval/num_queries"]
    assert [cell.value for cell in counts] == [50, 60, 50]
    assert not any(cell.is_best for cell in counts)


def test_a_metric_of_one_run_alone_is_missing_in_the_others(runs):
    path = runs[0] / "results.json"
    content = json.loads(path.read_text())
    content["test"]["clustering"] = {"nmi": {"model": 0.25}}
    path.write_text(json.dumps(content))
    (runs[0] / "intervals.json").unlink()  # As of an older version.
    cells = compare_runs(runs).metrics["test", "clustering/nmi"]
    assert cells == [Cell(value=0.25), Cell(value=None), Cell(value=None)]
    assert [str(cell) for cell in cells] == ["0.250", "-", "-"]


def test_runs_of_one_name_are_told_apart_by_their_paths(tmp_path):
    runs = [write_run(tmp_path / x / "run", 0.5) for x in ("a", "b")]
    assert compare_runs(runs).names == [str(path) for path in runs]


def test_a_run_that_has_not_finished_is_refused(runs):
    (runs[1] / "results.json").unlink()
    with pytest.raises(DataError, match=r"b has no results.json, so it has not finish"):
        compare_runs(runs)
    (runs[1] / "results.json").write_text("{")
    with pytest.raises(DataError, match=r"results.json cannot be read"):
        compare_runs(runs)


def test_the_command_prints_text_json_and_writes_csv(runs, tmp_path, capsys):
    words = ["compare-runs", *map(str, runs)]
    main([*words, f"--out={tmp_path / 'x.csv'}"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["config", "a", "b", "c"]
    assert lines[1].split() == ["batch_size", "32", "64", "64"]
    row = next(line for line in lines if "recall@1" in line)
    assert "0.500 [0.400, 0.600]  0.750 [0.650, 0.850] *" in row
    with (tmp_path / "x.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert rows[1] | {"run": "b", "value": "0.75", "is_best": "True"} == rows[1]
    main([*words, "--json"])
    values = json.loads(capsys.readouterr().out)
    assert values["config"] == {"batch_size": {"a": 32, "b": 64, "c": 64}}
    assert values["metrics"][0]["runs"]["b"]["is_best"]


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(SystemExit) as exit_info:
        main(["compare-runs", str(tmp_path)])
    assert "is not a run, it has no config.json" in str(exit_info.value)


@pytest.fixture
def twins(trained, tmp_path):
    """Returns a run and a copy of it whose test embeddings are random."""
    for name in ("first", "second"):
        shutil.copytree(trained, tmp_path / name)
    path = tmp_path / "second" / "test_embeddings.npz"
    with np.load(path) as saved:
        embeddings, ok = saved["embeddings"], saved["ok"]
    noise = np.random.default_rng(0).normal(size=embeddings.shape)
    np.savez(path, embeddings=noise.astype(np.float32), ok=ok)
    Workdir(path.parent).seal()
    return [tmp_path / "first", tmp_path / "second"]


def test_few_classes_have_no_differences(twins):
    comparison = compare_runs(twins)
    assert "the queries of test are of fewer than 10 classes" in comparison.note
    cells = comparison.metrics["test", "retrieval/map@r"]
    assert all(cell.low is None and cell.above_first is None for cell in cells)


def test_differences_are_paired_where_triplets_are_the_same(
    twins, trained, capsys, monkeypatch
):
    monkeypatch.setattr(bootstrap, "LEAST_GROUPS", 6)
    comparison = compare_runs([*twins, trained])
    assert "paired 95 % intervals" in comparison.note
    first, second, third = comparison.metrics["test", "retrieval/map@r"]
    assert first.above_first is None
    value, low, high = second.above_first
    assert low < value < high
    assert value < 0  # Noise is worse.
    assert third.above_first == (0, 0, 0)
    assert comparison.metrics["validation", "retrieval/map@r"][1].above_first is None
    assert comparison.metrics["test", "retrieval/num_queries"][1].above_first is None
    main(["compare-runs", *map(str, twins), str(trained)])
    _, table = capsys.readouterr().out.split("second - first")
    assert "num_" not in table
    assert "-0.000" not in table
    rows = {line.split()[1]: line for line in table.splitlines()[1:]}
    # A score counts triplets; the last run is the first itself.
    assert rows["retrieval/map@r"].endswith(" 0.000 [0.000, 0.000]")
    assert rows["triplets/score_at_30"].endswith(" 0 [0, 0]")


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(-0.0, 3, "0.000"), (-0.0004, 3, "0.000"), (-0.0006, 3, "-0.001"),
     (0.25, 3, "+0.250"), (-12.0, 0, "-12"), (1234.0, 0, "+1,234"), (0.2, 0, "0")],
)  # fmt: skip
def test_only_what_differs_has_a_sign(value, digits, text):
    assert compare_runs_command._signed(value, digits) == text


def test_other_triplets_or_data_leave_the_values_alone(twins):
    path = twins[1] / "triplets" / "test.csv"
    text = path.read_text()
    path.write_text(text[:-2])
    comparison = compare_runs(twins)
    assert comparison.note.startswith("Values alone are compared: the evaluation tripl")
    path.write_text(text)
    path = twins[1] / "test_embeddings.npz"
    for content in (path.read_bytes()[:-9], b"", b"PK of no archive"):
        path.write_bytes(content)
        comparison = compare_runs(twins)
        assert f"Values alone are compared: {path} cannot be" in comparison.note
    path.unlink()
    comparison = compare_runs(twins)
    assert comparison.note.endswith("second/test_embeddings.npz is missing.")
    cells = comparison.metrics["test", "retrieval/map@r"]
    assert all(cell.above_first is None for cell in cells)


@pytest.mark.parametrize("name", ["results.json", "intervals.json"])
def test_a_run_that_has_changed_is_refused(twins, name):
    path = twins[1] / name
    text = path.read_text()
    place = max(text.rfind(digit) for digit in "123456789")
    changed = text[:place] + ("1" if text[place] == "9" else "9") + text[place + 1 :]
    for content in (changed, None):
        path.unlink() if content is None else path.write_text(content)
        with pytest.raises(UserError, match=f"{path} cannot be read"):
            compare_runs(twins)
