r"""Computes the paper's table on a dataset: every baseline, every network, one command.

  python -m deeprank_jax.experiments.paper_table.run --config=configs/paper_table_emoji.py

The config file names the NETWORKS to train and the SWEEP. What is done is not done
again. Writes `results/<config>.json`, `.csv` and `.md`, and a page in the workdir.
"""

from collections.abc import Sequence
import pathlib
import shlex
import sys
import time
from typing import Any

from absl import app, flags, logging

from deeprank_jax import logs
from deeprank_jax.distributed import backend
from deeprank_jax.experiments import runs
from deeprank_jax.experiments.paper_table import measuring, outcome, systems
from deeprank_jax.experiments.paper_table.dataset import create_table
from deeprank_jax.experiments.paper_table.plan import Plan, read_plan
from deeprank_jax.experiments.paper_table.rows import METRICS

_CONFIG = flags.DEFINE_string("config", None, "The config file.", required=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "For the runs; runs/<config>.")
_OUT = flags.DEFINE_string("out", "results", "The folder for the tables.")
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Where the dataset is.")
_JOBS = flags.DEFINE_integer("jobs", 1, "Runs at the same time.", lower_bound=1)
_SET = flags.DEFINE_multi_string("set", [], "NAME=VALUE of every run's config.")
_DO_SWEEP = flags.DEFINE_bool("sweep", True, "Whether to make the runs of the sweep.")


def main(argv: Sequence[str]) -> None:
    """Describes, trains, measures, writes."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    backend.configure_backend()
    try:
        _compare()
    except (ValueError, OSError, RuntimeError) as error:
        raise SystemExit(f"error: {error}") from error


def _compare() -> None:
    path = pathlib.Path(_CONFIG.value)
    workdir = pathlib.Path(_WORKDIR.value or f"runs/{path.stem}")
    values = [f"data.dir={_DATA_DIR.value}", *_SET.value]
    plan = read_plan(path, values, sweeps=_DO_SWEEP.value)
    start = time.perf_counter()
    table = create_table(plan.config, workdir)
    found = systems.hand_made_systems(table)
    scores = measuring.measure(table, found, table.measurable(found.values()))
    outcome.metrics_of(scores["pixels"])  # Before hours of training.
    seconds = measuring.longest(workdir / "hand_made.json", time.perf_counter() - start)
    made = runs.Runs(path, workdir, values)
    trained = systems.network_systems(table, made, plan, found["l1_hash_kpca"])
    scores, ok = measuring.measure_all(table, found, trained, scores)
    compared = outcome.compare(
        table,
        found | trained,
        scores,
        ok,
        sweeps=_sweep(plan, workdir / "sweep", values),
        minutes=seconds / 60,
        command=shlex.join(
            ["python", "-m", "deeprank_jax.experiments.paper_table.run", *sys.argv[1:]]
        ),
    )
    outcome.write(compared, pathlib.Path(_OUT.value) / path.stem, workdir)


def _sweep(plan: Plan, workdir: pathlib.Path, values: Sequence[str]) -> dict[str, Any]:
    """Returns by metric and mode the points of the sweep, `(share, number)`."""
    made = runs.Runs(plan.sweep_config, workdir, values, _JOBS.value)
    results = made.make_all(plan.sweep, description="sweep")
    lines: dict[str, Any] = {}
    for name, settings in plan.sweep.items():
        for metric in [*METRICS][:2]:
            found = runs.value(results[name], metric)
            ends = made.interval(name, metric) or (None, None)
            line = lines.setdefault(metric, {}).setdefault(settings["sampler.mode"], [])
            line.append((settings["sampler.out_of_class"], (found, *ends)))
    return lines


if __name__ == "__main__":
    logs.show_own(logging.WARNING)
    app.run(main)
