r"""Compares arms of an experiment over several seeds, each arm tuned alike.

  python -m tools.ablation --config=configs/ablation_sampling.py

The config file names ARMS, the GRID that each is tuned on by validation, TUNING_SEED,
SEEDS and METRICS. Every run is a process of its own in a folder of its own; called
again, runs that are done are not made again. Writes `results/<config>.json`.
"""

from collections.abc import Mapping, Sequence
from concurrent import futures
import functools
import importlib.util
import itertools
import json
import pathlib
import shlex
import subprocess
import sys
from typing import Any

from absl import app, flags
import tqdm

from deeprank_jax import writers
from deeprank_jax.evaluators.intervals import compare_arms, format_comparison

_CONFIG = flags.DEFINE_string("config", None, "The config file.", required=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "For the runs; runs/<config>.")
_OUT = flags.DEFINE_string("out", None, "The summary; results/<config>.json.")
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Where the dataset is.")
_JOBS = flags.DEFINE_integer("jobs", 1, "Runs at the same time.", lower_bound=1)
_EXTRA = flags.DEFINE_multi_string("set", [], "NAME=VALUE of every run's config.")


def main(argv: Sequence[str]) -> None:
    """Tunes, runs, compares."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    path = pathlib.Path(_CONFIG.value)
    plan = load_plan(path)
    run_all = functools.partial(
        _run_all, workdir=pathlib.Path(_WORKDIR.value or f"runs/{path.stem}")
    )
    points = [
        dict(zip(plan.GRID, values, strict=True))
        for values in itertools.product(*plan.GRID.values())
    ]
    numbered = list(itertools.product(plan.ARMS, range(len(points))))
    tuned = run_all(
        {
            f"{arm}-tune{i}": plan.ARMS[arm] | points[i] | {"seed": plan.TUNING_SEED}
            for arm, i in numbered
        },
        description="tuning",
    )
    best_metric = plan.get_config().evaluation.best_metric
    scores = {name: _value(r, "validation", best_metric) for name, r in tuned.items()}
    best = {
        arm: points[max(range(len(points)), key=lambda i: scores[f"{arm}-tune{i}"])]
        for arm in plan.ARMS
    }
    results = run_all(
        {
            f"{arm}-seed{seed}": plan.ARMS[arm] | best[arm] | {"seed": seed}
            for seed, arm in itertools.product(plan.SEEDS, plan.ARMS)
        },
        description="comparing",
    )
    compared = {
        metric: compare_arms(
            {
                arm: [
                    _value(results[f"{arm}-seed{s}"], "test", metric)
                    for s in plan.SEEDS
                ]
                for arm in plan.ARMS
            }
        )
        for metric in plan.METRICS
    }
    summary = {
        "command": shlex.join(
            [
                *("python", "-m", "tools.ablation", f"--config={path}"),
                *(f"--set={value}" for value in _EXTRA.value),
            ]
        ),
        "tuning": scores,
        "chosen": best,
        "test": compared,
    }
    out = pathlib.Path(_OUT.value or f"results/{path.stem}.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    writers.write_json(out, summary)
    print(format_comparison(compared), f"Wrote {out}.", sep="\n")


def load_plan(path: pathlib.Path) -> Any:
    """Returns the config file as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise SystemExit(f"error: {path} is no config file; give its path.")
    plan = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plan)
    for name in ("ARMS", "GRID", "TUNING_SEED", "SEEDS", "METRICS"):
        if not hasattr(plan, name):
            raise SystemExit(f"error: {path} has no {name}, and so nothing to compare.")
    return plan


def _run_all(
    runs: Mapping[str, Mapping[str, Any]], *, workdir: pathlib.Path, description: str
) -> dict[str, Any]:
    """Returns the results of each run, made if they are not there yet."""
    with futures.ThreadPoolExecutor(_JOBS.value) as pool:
        done = pool.map(lambda name: _run(workdir / name, runs[name]), runs)
        bar = tqdm.tqdm(done, total=len(runs), desc=description, unit="run")
        return dict(zip(runs, bar, strict=True))


def _run(workdir: pathlib.Path, settings: Mapping[str, Any]) -> Any:
    results, made = workdir / "results.json", workdir / "settings.json"
    values = [f"{name}={value}" for name, value in settings.items()]
    values += [f"data.dir={_DATA_DIR.value}", *_EXTRA.value]
    if made.exists() and json.loads(made.read_text()) != values:
        raise SystemExit(
            f"error: {workdir} was made with the settings in {made}, now they are "
            f"{' '.join(values)}; give another --workdir, or remove it."
        )
    if not results.exists():
        workdir.mkdir(parents=True, exist_ok=True)
        writers.write_json(made, values)
        command = [sys.executable, "-m", "deeprank_jax.main", f"--workdir={workdir}"]
        command += [f"--config={_CONFIG.value}", *(f"--config.{v}" for v in values)]
        with (workdir / "log.txt").open("a") as log:
            done = subprocess.run(command, stdout=log, stderr=log, check=False)
        if done.returncode:
            raise SystemExit(f"error: a run failed; see {workdir / 'log.txt'}.")
    return json.loads(results.read_text())


def _value(results: Any, split: str, metric: str) -> float:
    evaluator, name = metric.split("/")
    return results[split][evaluator][name]["model"]


if __name__ == "__main__":
    app.run(main)
