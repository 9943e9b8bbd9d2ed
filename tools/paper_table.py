r"""Computes the paper's table on a dataset: every baseline, every network, one command.

  python -m tools.paper_table --config=configs/paper_table_emoji.py

The config file names the NETWORKS to train and the SWEEP. What is done is not done
again. Writes `results/<config>.json`, `.csv` and `.md`, and a page in the workdir.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import pathlib
import shlex
import sys
import time
from typing import Any

from absl import app, flags, logging
import tqdm

from deeprank_jax import parallel, provenance, writers
from deeprank_jax.evaluators import bootstrap
from deeprank_jax.report import comparison
from tools import paper_parts, paper_rows, plans, runs

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
    parallel.configure_backend()
    try:
        _compare()
    except (ValueError, OSError, RuntimeError) as error:
        raise SystemExit(f"error: {error}") from error


def _compare() -> None:
    path = pathlib.Path(_CONFIG.value)
    plan = plans.load_plan(path, ("NETWORKS", "SWEEP", "SWEEP_CONFIG"))
    workdir = pathlib.Path(_WORKDIR.value or f"runs/{path.stem}")
    config = plans.changed(
        plan.get_config(), [f"data.dir={_DATA_DIR.value}", *_SET.value]
    )
    start = time.perf_counter()
    table = paper_parts.create_table(config, workdir)
    systems = paper_parts.hand_made_systems(table)
    scores = _measure(table, systems)
    _check_metrics(scores["pixels"])  # Before hours of training.
    seconds = _longest(workdir / "hand_made.json", time.perf_counter() - start)
    made = runs.Runs(path, workdir, [f"data.dir={_DATA_DIR.value}", *_SET.value])
    networks = paper_parts.network_systems(
        table, made, plan.NETWORKS, systems["l1_hash_kpca"]
    )
    scores |= _measure(table, networks)
    sweeps = _sweep(plan, workdir / "sweep") if _DO_SWEEP.value else {}
    systems |= networks
    sure = _compare_with_first(table, scores)
    compared = comparison.Comparison(
        title=f"The paper's table, on {config.data.name}",
        first=paper_rows.FIRST,
        rows=[
            _row(name, sure[name], table.measure_whole(systems[name]))
            for name in tqdm.tqdm(paper_rows.ROWS, desc="clusters", unit="row")
        ],
        metrics=paper_rows.METRICS,
        published_by="paper (other data)",
        sweeps=sweeps,
        sweep_label="share of negatives of other categories",
        facts=_facts(table, seconds),
        command=shlex.join(["python", "-m", "tools.paper_table", *sys.argv[1:]]),
    )
    _write(compared, pathlib.Path(_OUT.value) / path.stem, workdir)


def _measure(table: paper_parts.Table, systems: Mapping[str, Any]) -> dict[str, Any]:
    bar = tqdm.tqdm(systems.items(), desc="measuring", unit="row")
    return {name: table.measure(system) for name, system in bar}


def _check_metrics(scores: Mapping[str, Any]) -> None:
    missing = [name for name in paper_rows.METRICS if name not in scores]
    if missing:
        raise SystemExit(
            f"error: {', '.join(missing)} cannot be measured: the test split has no "
            "triplet, or config.evaluation has other cut-offs than k=30 for triplets "
            "and 1 and 10 among those of retrieval."
        )


def _longest(path: pathlib.Path, seconds: float) -> float:
    """Returns how long the call took that had the most to do, and keeps it."""
    if path.exists():
        seconds = max(seconds, json.loads(path.read_text())["seconds"])
    writers.write_json(path, {"seconds": seconds})
    return seconds


def _compare_with_first(
    table: paper_parts.Table, scores: Mapping[str, Any]
) -> dict[str, dict[str, bootstrap.Compared]]:
    (first,) = (n for n, row in paper_rows.ROWS.items() if row.name == paper_rows.FIRST)
    return bootstrap.compare({first: scores[first], **scores}, groups=table.test.groups)


def _row(
    name: str, found: Mapping[str, bootstrap.Compared], whole: Mapping[str, float]
) -> comparison.Row:
    about = paper_rows.ROWS[name]
    ends = lambda interval: (interval.value, interval.low, interval.high)
    return comparison.Row(
        name=about.name,
        about=about.text,
        group=about.group,
        numbers={metric: ends(x.own) for metric, x in found.items()},
        whole=whole,
        difference={
            metric: ends(found[metric].difference)
            for metric in paper_rows.METRICS
            if found[metric].difference is not None
        },
        published=dict(zip(paper_rows.METRICS, about.paper or (), strict=False)),
    )


def _facts(table: paper_parts.Table, seconds: float) -> dict[str, str]:
    config, test = table.config, table.splits["test"]
    sizes = [f"{name} {len(x):,} images" for name, x in table.splits.items()]
    options = config.evaluation.triplets
    return {
        "Dataset": f"{config.data.name}: {', '.join(sizes)}",
        "Triplets": f"{options.num:,} of test, drawn by the relevance "
        f"{config.relevance.name}, {options.out_of_class:.0%} of negatives of other "
        "categories",
        "Queries": f"{len(test):,} images of test, each searched for among the others",
        "Seen in training": table.overlap().describe(),
        "Settings": "weights of the golden feature from simulated ratings of training "
        "images; OASIS, joins and checkpoints chosen on validation, but the softmax "
        "network's checkpoint on training images held out",
        "Hand-made part": f"{seconds / 60:.1f} minutes in the call that took longest",
        "Commit": provenance.commit(),
    }


def _sweep(plan: Any, workdir: pathlib.Path) -> dict[str, Any]:
    """Returns by metric and mode the values `(share, value)` of the sweep's runs."""
    common = [f"data.dir={_DATA_DIR.value}", *_SET.value]
    made = runs.Runs(pathlib.Path(plan.SWEEP_CONFIG), workdir, common, _JOBS.value)
    results = made.make_all(plan.SWEEP, description="sweep")
    lines: dict[str, Any] = {}
    for name, settings in plan.SWEEP.items():
        for metric in [*paper_rows.METRICS][:2]:
            point = settings["sampler.out_of_class"], runs.value(results[name], metric)
            line = lines.setdefault(metric, {}).setdefault(settings["sampler.mode"], [])
            line.append(point)
    return lines


def _write(
    compared: comparison.Comparison, stem: pathlib.Path, workdir: pathlib.Path
) -> None:
    stem.parent.mkdir(parents=True, exist_ok=True)
    writers.write_json(stem.with_suffix(".json"), dataclasses.asdict(compared))
    table = comparison.format_markdown(compared)
    stem.with_suffix(".md").write_text(table)
    stem.with_suffix(".csv").write_text(comparison.format_csv(compared))
    page = comparison.write_comparison(compared, workdir / "table.html")
    print(table, f"Wrote {stem}.json, .csv and .md. Look at {page}.", sep="\n")


if __name__ == "__main__":
    logging.set_verbosity(logging.WARNING)
    app.run(main)
