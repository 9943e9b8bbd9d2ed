r"""The paper's table on a dataset: every baseline and every network, by one command.

The config file names the NETWORKS to train and the SWEEP. Finished runs are reused.
"""

from collections.abc import Sequence
import pathlib
import time

from deeprank_jax.experiments import runs
from deeprank_jax.experiments.paper_table import measuring, outcome, systems
from deeprank_jax.experiments.paper_table.dataset import create_table
from deeprank_jax.experiments.paper_table.plan import Plan, read_plan
from deeprank_jax.experiments.paper_table.rows import METRICS
from deeprank_jax.report.comparison import Comparison, Number


def run_paper_table(
    path: pathlib.Path,
    *,
    workdir: pathlib.Path,
    out: pathlib.Path,
    command: str,
    overrides: Sequence[str] = (),
    jobs: int = 1,
    sweep: bool = True,
) -> str:
    """Computes descriptors, trains networks, measures all and writes the table.

    Args:
      path: Path of the config file with the plan.
      workdir: Folder for the runs and the page.
      out: Folder for the JSON, CSV and Markdown files, named after the config file.
      command: Command line, for the page.
      overrides: `KEY=VALUE` overrides of every run's config.
      jobs: Number of the sweep's runs trained at the same time.
      sweep: False leaves out the sweep.

    Returns:
      The table as Markdown, and the paths of the files.

    Raises:
      ConfigError: The plan is not valid.
      DataError: The dataset cannot be used, or the folder holds other runs.
      LockedError: Another process trains runs in the folder.
      RunError: A run fails.
    """
    plan = read_plan(path, overrides, sweeps=sweep)
    launcher = runs.Runs(path, workdir, overrides)
    sweeps = runs.Runs(plan.sweep_config, workdir / "sweep", overrides, jobs)
    with launcher.locked():
        comparison = _compare(plan, launcher, sweeps, command)
        return outcome.write(comparison, out / path.stem, workdir)


def _compare(
    plan: Plan, launcher: runs.Runs, sweeps: runs.Runs, command: str
) -> Comparison:
    """Computes all systems and measures them.

    Args:
      plan: Plan of the table.
      launcher: Runs of the networks.
      sweeps: Runs of the sweep.
      command: Command line, for the page.
    """
    workdir = launcher.workdir
    start = time.perf_counter()
    table = create_table(plan.config, workdir)
    handmade = systems.hand_made_systems(table)
    scores = measuring.measure(table, handmade, table.measurable(handmade.values()))
    outcome.metrics_of(scores["pixels"])  # A missing metric ends it before training.
    seconds = measuring.longest(workdir / "hand_made.json", time.perf_counter() - start)
    trained = systems.network_systems(table, launcher, plan, handmade["l1_hash_kpca"])
    scores, ok = measuring.measure_all(table, handmade, trained, scores)
    return outcome.compare(
        table,
        handmade | trained,
        scores,
        ok,
        sweeps=_sweep(plan, sweeps),
        minutes=seconds / 60,
        command=command,
        further=plan.further,
    )


def _sweep(plan: Plan, launcher: runs.Runs) -> outcome.Sweeps:
    """Trains the sweep and returns its points by metric and mode."""
    results = launcher.train_all(plan.sweep, description="sweep")
    lines: dict[str, dict[str, list[tuple[float, Number]]]] = {}
    for name, settings in plan.sweep.items():
        mode, share = settings["sampler.mode"], settings["sampler.out_of_class"]
        for metric in [*METRICS][:2]:
            value = runs.value(results[name], metric)
            low, high = launcher.interval(name, metric) or (None, None)
            line = lines.setdefault(metric, {}).setdefault(str(mode), [])
            line.append((float(str(share)), (value, low, high)))
    return lines
