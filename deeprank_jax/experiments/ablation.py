r"""Ablations: arms of an experiment compared over seeds, each tuned on the same grid.

The config file also defines ARMS, the GRID that each arm is tuned on by validation,
TUNING_SEED, SEEDS and METRICS. It may define PAIRS, the arms to compare; by default the
first arm is compared with each other. An empty GRID tunes nothing. Every run is a
process of its own in its own folder; finished runs are reused.
"""

from collections.abc import Sequence
import itertools
import pathlib
import types

from deeprank_jax import files
from deeprank_jax.evaluation.paired_intervals import compare_arms, format_comparison
from deeprank_jax.experiments import plans, runs

PLAN = ("ARMS", "GRID", "TUNING_SEED", "SEEDS", "METRICS")


def run_ablation(
    path: pathlib.Path,
    *,
    workdir: pathlib.Path,
    out: pathlib.Path,
    command: str,
    overrides: Sequence[str] = (),
    jobs: int = 1,
) -> str:
    """Tunes and trains all arms, compares them and writes the summary.

    Args:
      path: Path of the config file with the plan.
      workdir: Folder for the runs.
      out: Path of the summary, a JSON file.
      command: Command line, for the summary.
      overrides: `KEY=VALUE` overrides of every run's config.
      jobs: Number of runs trained at the same time.

    Returns:
      The comparison as a Markdown table.

    Raises:
      ConfigError: The file is not a plan, or a setting of an arm does not fit.
      DataError: The folder holds runs with other settings.
      LockedError: Another process trains runs in the folder.
      RunError: A run fails.
    """
    plan = plans.load_plan(path, PLAN)
    pairs = plans.arm_pairs(plan)
    _check_arms(path, plan, overrides)
    launcher = runs.Runs(config=path, workdir=workdir, common=overrides, jobs=jobs)
    with launcher.locked():
        scores, best = _tune(plan, launcher)
        results = launcher.train_all(
            {
                f"{arm}-seed{seed}": plan.ARMS[arm] | best[arm] | {"seed": seed}
                for seed, arm in itertools.product(plan.SEEDS, plan.ARMS)
            },
            description="comparing",
        )
    comparison = {
        metric: compare_arms(
            {
                arm: [runs.value(results[f"{arm}-seed{s}"], metric) for s in plan.SEEDS]
                for arm in plan.ARMS
            },
            pairs,
        )
        for metric in plan.METRICS
    }
    summary = {
        "command": command,
        "tuning": scores,
        "chosen": best,
        "test": comparison,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(out, summary)
    return format_comparison(comparison)


def _check_arms(
    path: pathlib.Path, plan: types.ModuleType, overrides: Sequence[str]
) -> None:
    """Checks the settings of every run before the first is trained.

    Raises:
      ConfigError: A setting does not fit.
    """
    config = plan.get_config()
    for arm, settings in plan.ARMS.items():
        for point in _grid(plan):
            where = f"ARMS[{arm!r}] or GRID in {path}"
            plans.check_settings(where, config, {**settings, **point}, overrides)


def _grid(plan: types.ModuleType) -> list[dict[str, object]]:
    """Returns the settings that each arm is tuned on; one without any if none is."""
    return [
        dict(zip(plan.GRID, values, strict=True))
        for values in itertools.product(*plan.GRID.values())
    ]


def _tune(
    plan: types.ModuleType, launcher: runs.Runs
) -> tuple[dict[str, float], dict[str, dict[str, object]]]:
    """Returns each tuning run's validation metric, and each arm's best settings."""
    if not plan.GRID:
        return {}, {arm: {} for arm in plan.ARMS}
    grid = _grid(plan)
    results = launcher.train_all(
        {
            f"{arm}-tune{i}": plan.ARMS[arm] | point | {"seed": plan.TUNING_SEED}
            for arm in plan.ARMS
            for i, point in enumerate(grid)
        },
        description="tuning",
    )
    metric = plan.get_config().evaluation.best_metric
    scores = {
        name: runs.value(result, metric, split="validation")
        for name, result in results.items()
    }
    best = {
        arm: grid[max(range(len(grid)), key=lambda i: scores[f"{arm}-tune{i}"])]
        for arm in plan.ARMS
    }
    return scores, best
