r"""Compares arms of an experiment over several seeds, each arm tuned alike.

  python -m deeprank_jax.experiments.ablation --config=configs/ablation_sampling.py

The config file names ARMS, the GRID that each is tuned on by validation, TUNING_SEED,
SEEDS and METRICS. Every run is a process of its own in a folder of its own; called
again, runs that are done are not made again. Writes `results/<config>.json`.
"""

from collections.abc import Sequence
import itertools
import pathlib
import shlex

from absl import app, flags, logging

from deeprank_jax import files, logs
from deeprank_jax.evaluation.paired_intervals import compare_arms, format_comparison
from deeprank_jax.experiments import plans, runs

_CONFIG = flags.DEFINE_string("config", None, "The config file.", required=True)
_WORKDIR = flags.DEFINE_string("workdir", None, "For the runs; runs/<config>.")
_OUT = flags.DEFINE_string("out", None, "The summary; results/<config>.json.")
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Where the dataset is.")
_JOBS = flags.DEFINE_integer("jobs", 1, "Runs at the same time.", lower_bound=1)
PLAN = ("ARMS", "GRID", "TUNING_SEED", "SEEDS", "METRICS")
_EXTRA = flags.DEFINE_multi_string("set", [], "NAME=VALUE of every run's config.")


def main(argv: Sequence[str]) -> None:
    """Tunes, runs, compares."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    path = pathlib.Path(_CONFIG.value)
    plan = plans.load_plan(path, PLAN)
    made = runs.Runs(
        config=path,
        workdir=pathlib.Path(_WORKDIR.value or f"runs/{path.stem}"),
        common=[f"data.dir={_DATA_DIR.value}", *_EXTRA.value],
        jobs=_JOBS.value,
    )
    points = [
        dict(zip(plan.GRID, values, strict=True))
        for values in itertools.product(*plan.GRID.values())
    ]
    numbered = list(itertools.product(plan.ARMS, range(len(points))))
    tuned = made.make_all(
        {
            f"{arm}-tune{i}": plan.ARMS[arm] | points[i] | {"seed": plan.TUNING_SEED}
            for arm, i in numbered
        },
        description="tuning",
    )
    best_metric = plan.get_config().evaluation.best_metric
    scores = {
        name: runs.value(r, best_metric, split="validation")
        for name, r in tuned.items()
    }
    best = {
        arm: points[max(range(len(points)), key=lambda i: scores[f"{arm}-tune{i}"])]
        for arm in plan.ARMS
    }
    results = made.make_all(
        {
            f"{arm}-seed{seed}": plan.ARMS[arm] | best[arm] | {"seed": seed}
            for seed, arm in itertools.product(plan.SEEDS, plan.ARMS)
        },
        description="comparing",
    )
    compared = {
        metric: compare_arms(
            {
                arm: [runs.value(results[f"{arm}-seed{s}"], metric) for s in plan.SEEDS]
                for arm in plan.ARMS
            }
        )
        for metric in plan.METRICS
    }
    summary = {
        "command": shlex.join(
            [
                *(
                    "python",
                    "-m",
                    "deeprank_jax.experiments.ablation",
                    f"--config={path}",
                ),
                *(f"--set={value}" for value in _EXTRA.value),
            ]
        ),
        "tuning": scores,
        "chosen": best,
        "test": compared,
    }
    out = pathlib.Path(_OUT.value or f"results/{path.stem}.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(out, summary)
    print(format_comparison(compared), f"Wrote {out}.", sep="\n")


if __name__ == "__main__":
    logs.show_own(logging.WARNING)
    app.run(main)
