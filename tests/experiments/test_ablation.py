"""The comparison of arms: tuned alike, paired by seed, taken up again."""

import json
import pathlib

from helpers import shrunk
from helpers.commands import run_command
import numpy as np
import pytest
from scipy import stats

from deeprank_jax.errors import ConfigError
from deeprank_jax.evaluation.paired_intervals import (
    compare_arms,
    format_comparison,
    paired_interval,
)
from deeprank_jax.experiments import ablation, plans

ROOT = pathlib.Path(__file__).parents[2]


def test_the_interval_is_that_of_the_paired_t_test():
    a, b = [0.6, 0.7, 0.65, 0.72], [0.55, 0.69, 0.6, 0.7]
    mean, low, high = paired_interval(a, b)
    expected = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert mean == pytest.approx(np.mean(a) - np.mean(b))
    assert (low, high) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(("a", "b"), [([1.0], [1.0]), ([1.0, 2.0], [1.0])])
def test_too_few_pairs_are_refused(a, b):
    with pytest.raises(ValueError, match="as many values of both arms"):
        paired_interval(a, b)


def test_arms_are_compared_by_seed():
    compared = compare_arms({"a": [2.0, 3.0, 5.0], "b": [1.0, 2.0, 3.0]})
    assert compared["mean"] == {"a": pytest.approx(10 / 3), "b": 2.0}
    difference = compared["difference"]["a - b"]
    assert difference["mean"] == pytest.approx(4 / 3)
    assert difference["low"] < 4 / 3 < difference["high"]
    table = format_comparison({"x/y": compared}).splitlines()
    assert table[0] == "| | a | b | a - b |"
    assert table[2].startswith("| x/y | 3.333 | 2 | +1.333 [")


def test_named_pairs_are_compared():
    values = {"a": [1.0, 2.0], "b": [0.0, 2.0], "c": [3.0, 3.5]}
    compared = compare_arms(values, [("b", "a"), ("c", "b")])
    assert compared["difference"].keys() == {"b - a", "c - b"}
    assert compared["difference"]["c - b"]["mean"] == pytest.approx(2.25)
    assert compared["mean"].keys() == values.keys()


PLAN = """
from deeprank_jax.configs import ablation_sampling

ARMS, METRICS = ablation_sampling.ARMS, ("triplets/precision", "retrieval/map@r")
GRID = {"optimizer.learning_rate": (1e-3, 3e-3)}
TUNING_SEED, SEEDS = 7, (0, 1)
get_config = ablation_sampling.get_config
"""


@pytest.mark.full  # Eight runs.
def test_the_comparison_runs_and_is_taken_up_again(tmp_path):
    plan = tmp_path / "plan.py"
    plan.write_text(PLAN)
    command = ["ablation", f"--config={plan}"]
    command += [f"--workdir={tmp_path / 'runs'}", f"--out={tmp_path / 'x.json'}"]
    command += [f"--config.data.dir={tmp_path / 'data'}", *shrunk.flags()]
    run = lambda: run_command(command, folder=ROOT)
    done = run()
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "x.json").read_text())
    assert set(summary["tuning"]) == {
        f"{arm}-tune{i}" for arm in ("importance", "uniform") for i in (0, 1)
    }
    compared = summary["test"]["triplets/precision"]
    assert compared["seeds"].keys() == {"importance", "uniform"}
    folders = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert len(folders) == 8
    config = json.loads((tmp_path / "runs/uniform-seed1/config.json").read_text())
    assert (config["sampler"]["mode"], config["seed"]) == ("uniform", 1)
    times = [path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()]
    assert run().returncode == 0
    assert times == [path.stat().st_mtime_ns for path in (tmp_path / "runs").iterdir()]

    command[0] = "rejudge"
    done = run()
    assert done.returncode == 0, done.stderr
    judged = json.loads((tmp_path / "x.json").read_text())["test"]
    assert judged.keys() == {"triplets/precision"}
    assert 0 < judged["triplets/precision"]["mean"]["uniform"] < 1


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ({"optimizer.learning_rat": 1}, "learning_rat is not a key of the config"),
        ({"batch_size": -1}, "config.batch_size"),
        ({"loss.name": "trplet_hinge"}, "did you mean 'triplet_hinge'"),
        ({"task.name": "classification"}, 'config.task.name="classification" gives'),
    ],
)
def test_an_arm_that_cannot_be_is_refused_before_any_run(tmp_path, arm, message):
    plan = tmp_path / "plan.py"
    arms = {"first": {}, "last": arm}
    plan.write_text(PLAN.replace("= ablation_sampling.ARMS,", f"= {arms!r},"))
    with pytest.raises(ConfigError, match=message) as refusal:
        ablation.run_ablation(
            plan, workdir=tmp_path / "runs", out=tmp_path / "x.json", command=""
        )
    assert f"It comes from ARMS['last'] or GRID in {plan}" in str(refusal.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "name", sorted(p.stem for p in (ROOT / "configs").glob("ablation_*.py"))
)
def test_the_arms_of_every_plan_are_valid(name):
    path = ROOT / "configs" / f"{name}.py"
    plan = plans.load_plan(path, ablation.PLAN)
    ablation._check_arms(path, plan, [])
    plans.arm_pairs(plan)


def test_a_file_that_is_no_plan_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.py: no such file"):
        plans.load_plan(tmp_path / "absent.py", ablation.PLAN)
    with pytest.raises(ConfigError, match="defines no ARMS"):
        plans.load_plan(ROOT / "configs" / "emoji.py", ablation.PLAN)
