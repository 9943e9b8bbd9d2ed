"""Runs of an experiment: made once, taken up, refused where they are of another."""

import json
import pathlib
import types

import numpy as np
import pytest

from deeprank_jax.configs import emoji
from deeprank_jax.errors import ConfigError, DataError
from deeprank_jax.experiments import runs
from deeprank_jax.files import locks
from deeprank_jax.training import checkpoints, workdir

PLAN = "from configs import emoji\nget_config = emoji.get_config\n"


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Runs whose process only writes what a run ends with; `made.calls` has each."""
    (tmp_path / "plan.py").write_text(PLAN)
    calls, returncode = [], [0]

    def run(command, **_):
        flags = dict(x.split("=", 1) for x in command[3:])
        calls.append(flags)
        workdir = pathlib.Path(flags["--workdir"])
        config = emoji.get_config()
        for flag, value in flags.items():
            if flag.startswith("--config."):
                found = {flag.removeprefix("--config."): value}
                number = value.isdigit() and {k: int(v) for k, v in found.items()}
                config.update_from_flattened_dict(number or found)
        (workdir / "config.json").write_text(config.to_json_best_effort())
        ends = {"test": {"retrieval": {"recall@1": {"model": {"low": 0, "high": 1}}}}}
        (workdir / "intervals.json").write_text(json.dumps(ends))
        (workdir / "results.json").write_text(json.dumps({"call": len(calls)}))
        return types.SimpleNamespace(returncode=returncode[0])

    def read_network(path):
        path = pathlib.Path(path)
        folder = path.parents[1] if path.name.isdigit() else path
        if not (folder / "weights").exists():
            raise checkpoints.CheckpointError("none")
        value = float((folder / "weights").read_text())
        return types.SimpleNamespace(arrays={"a": np.array([value])})

    monkeypatch.setattr(runs.children, "run", run)
    monkeypatch.setattr(runs.checkpoints, "read_network", read_network)
    found = types.SimpleNamespace(calls=calls, returncode=returncode)
    found.runs = runs.Runs(tmp_path / "plan.py", tmp_path, ["data.dir=data"])
    return found


def test_a_run_is_made_once(made, tmp_path):
    assert made.runs.train("one", {"seed": 3}) == {"call": 1}
    assert made.calls[0] == {
        "--workdir": str(tmp_path / "one"),
        "--config": str(tmp_path / "plan.py"),
        "--config.seed": "3",
        "--config.data.dir": "data",
    }
    assert made.runs.train("one", {"seed": 3}) == {"call": 1}
    assert made.runs.interval("one", "retrieval/recall@1") == (0, 1)
    # Without its intervals it is not complete: as of an older version.
    (tmp_path / "one" / "intervals.json").unlink()
    assert made.runs.train("one", {"seed": 3}) == {"call": 2}


def test_a_metric_may_have_no_interval(made, tmp_path):
    made.runs.train("one", {"seed": 3})
    found = {"test": {"retrieval": {"recall@1": {}}}}
    (tmp_path / "one" / "intervals.json").write_text(json.dumps(found))
    assert made.runs.interval("one", "retrieval/recall@1") is None


def test_a_run_that_fails_is_told(made):
    made.returncode[0] = 1
    with pytest.raises(runs.RunError, match=r"the run one failed; see .*one/log\.txt"):
        made.runs.train("one", {"seed": 3})


def test_runs_of_other_settings_are_not_taken_up(made, tmp_path):
    made.runs.train("one", {"seed": 0})
    with pytest.raises(DataError, match=r"now they are seed=1 data\.dir=data"):
        made.runs.train("one", {"seed": 1})
    settings = tmp_path / "one" / "settings.json"
    settings.write_text(json.dumps(json.loads(settings.read_text())["values"]))
    assert made.runs.train("one", {"seed": 0}) == {"call": 1}  # As of before.
    path = tmp_path / "one" / "config.json"
    config = json.loads(path.read_text())
    del config["max_skipped"]  # As of before there was such a key.
    path.write_text(json.dumps(config))
    assert made.runs.train("one", {"seed": 0}) == {"call": 1}
    path.write_text(json.dumps(config | {"num_steps": 999}))
    with pytest.raises(DataError, match=r"num_steps=999, .* now has 1000; give"):
        made.runs.train("one", {"seed": 0})


@pytest.mark.parametrize("start", ["first", "first/checkpoints/20"])
def test_a_run_is_refused_if_what_it_starts_from_was_made_anew(made, tmp_path, start):
    settings = {"init_from": str(tmp_path / start)}
    made.runs.train("first", {})
    weights = tmp_path / "first" / "weights"
    weights.write_text("1")
    assert made.runs.train("second", settings) == {"call": 2}
    assert made.runs.train("second", settings) == {"call": 2}
    # The same numbers written again are the same start.
    (tmp_path / "first" / "results.json").write_text("{}")
    assert made.runs.train("second", settings) == {"call": 2}
    weights.write_text("2")
    with pytest.raises(DataError, match="second started from a run that was trained"):
        made.runs.train("second", settings)


def test_a_start_that_was_not_there_yet_is_no_other(made, tmp_path):
    settings = {"init_from": str(tmp_path / "first")}
    made.returncode[0] = 1
    with pytest.raises(runs.RunError, match="failed; see"):
        made.runs.train("second", settings)
    (tmp_path / "second" / "results.json").unlink()
    made.returncode[0] = 0
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "weights").write_text("1")
    assert made.runs.train("second", settings) == {"call": 2}
    (tmp_path / "first" / "weights").write_text("2")
    with pytest.raises(DataError, match="second started from a run that was trained"):
        made.runs.train("second", settings)


@pytest.mark.parametrize("where", ["common", "plan"])
def test_the_start_is_that_of_the_whole_config(made, tmp_path, where):
    first = tmp_path / "first"
    first.mkdir()
    (first / "weights").write_text("1")
    common = [f"init_from={first}"] if where == "common" else []
    if where == "plan":
        change = f"config = emoji.get_config()\nconfig.init_from = {str(first)!r}\n"
        plan = f"from configs import emoji\n{change}get_config = lambda: config\n"
        (tmp_path / "plan.py").write_text(plan)
    made.runs = runs.Runs(tmp_path / "plan.py", tmp_path, common)
    made.runs.train("second", {"seed": 1})
    (first / "weights").write_text("2")
    with pytest.raises(DataError, match="second started from a run that was trained"):
        made.runs.train("second", {"seed": 1})


def test_a_value_is_the_models_on_a_split():
    results = {"test": {"triplets": {"precision": {"model": 0.9, "pixels": 0.7}}}}
    assert runs.value(results, "triplets/precision") == 0.9
    with pytest.raises(KeyError):
        runs.value(results, "triplets/precision", split="validation")


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("settings.json", "start", "staru"),
        ("settings.json", "values", ""),
        ("settings.json", "{", ""),
        ("settings.json", None, b"\xff"),
        ("results.json", "1", "3"),
        ("results.json", "}", ""),
        ("intervals.json", "low", "lov"),
        ("intervals.json", None, None),
        ("config.json", "seed", "sead"),
    ],
)
def test_a_damaged_file_of_a_run_is_named(made, tmp_path, name, old, new):
    made.runs.train("one", {"seed": 3})
    workdir.Workdir(tmp_path / "one").seal()
    made.runs.train("one", {"seed": 3})
    path = tmp_path / "one" / name
    if new is None:
        path.unlink()
    elif old is None:
        path.write_bytes(new)
    else:
        path.write_text(path.read_text().replace(old, new))
    with pytest.raises((DataError, ConfigError), match=name):
        made.runs.interval("one", "retrieval/recall@1") if name.startswith(
            "intervals"
        ) else made.runs.train("one", {"seed": 3})


def test_two_experiments_do_not_share_a_folder(made, tmp_path):
    with (
        made.runs.locked(),
        pytest.raises(locks.LockedError, match=r"is writing .*give another --workdir"),
    ):
        made.runs.locked()
    made.runs.locked().release()
    assert not (tmp_path / ".lock").exists()
