"""The finished table: all systems side by side, as files and a page."""

from collections.abc import Mapping
import dataclasses
import pathlib

import numpy as np

from deeprank_jax import files, version
from deeprank_jax.baselines.systems import System
from deeprank_jax.data import dataset_name
from deeprank_jax.errors import ConfigError
from deeprank_jax.evaluation import bootstrap
from deeprank_jax.experiments.paper_table import rows as rows_lib
from deeprank_jax.experiments.paper_table.dataset import Table
from deeprank_jax.experiments.paper_table.measuring import Scores
from deeprank_jax.files import locks
from deeprank_jax.progress import Bar
from deeprank_jax.report import comparison

# Points of the sweep `(share, (value, low, high))`, by metric and sampling mode.
Sweeps = Mapping[str, Mapping[str, list[tuple[float, comparison.Number]]]]


def metrics_of(scores: Scores) -> Mapping[str, str]:
    """Returns the table's metrics and their titles.

    Args:
      scores: Scores of a system by metric.

    Raises:
      ConfigError: A metric of the table is missing.
    """
    is_rated = "rated/precision" in scores
    metrics = rows_lib.RATED_METRICS if is_rated else rows_lib.METRICS
    missing = [name for name in metrics if name not in scores]
    if missing:
        raise ConfigError(
            f"{', '.join(missing)} cannot be measured: the test split has no "
            "triplet, or config.evaluation has other cut-offs than k=30 for triplets "
            "and 1 and 10 among those of retrieval."
        )
    return metrics


def compare(
    table: Table,
    systems: Mapping[str, System],
    scores: Mapping[str, Scores],
    ok: np.ndarray,
    *,
    sweeps: Sweeps,
    minutes: float,
    command: str,
    further: Mapping[str, rows_lib.Description] | None = None,
) -> comparison.Comparison:
    """Compares all systems with the first.

    Args:
      table: Dataset of the table.
      systems: Systems by row.
      scores: Scores of each system, from `Table.measure`.
      ok: `[N]` bool, the records of test that all were measured on.
      sweeps: Points of the sweep by metric and sampling mode.
      minutes: Duration of the hand-made part.
      command: Command line that makes the table.
      further: Descriptions of rows that are not the paper's.
    """
    rows = {**rows_lib.ROWS, **(further or {})}
    # The system that all others are compared with comes first.
    intervals = bootstrap.compare(
        {rows_lib.FIRST: scores[rows_lib.FIRST], **scores}, groups=table.test.groups
    )
    metrics = metrics_of(scores[rows_lib.FIRST])
    return comparison.Comparison(
        title=f"The paper's table, on {dataset_name(table.config.data)}",
        first=rows_lib.ROWS[rows_lib.FIRST].name,
        rows=[
            _row(
                description,
                intervals[name],
                table.measure_whole(systems[name], ok),
                metrics,
            )
            for name, description in Bar(rows.items(), desc="clusters", unit="row")
        ],
        metrics=metrics,
        published_by="paper (other data)",
        sweep_label="share of negatives of other categories",
        sweeps=sweeps,
        facts=_facts(table, ok, minutes),
        command=command,
    )


def write(
    outcome: comparison.Comparison, stem: pathlib.Path, workdir: pathlib.Path
) -> str:
    """Writes the files and the page.

    Args:
      outcome: Result of `compare`.
      stem: Path of the JSON, CSV and Markdown files, without their suffix.
      workdir: Folder for the page.

    Returns:
      The table as Markdown, and the paths of the files.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    # A name may hold a dot, which `with_suffix` would cut off.
    file = lambda kind: stem.with_name(f"{stem.name}.{kind}")
    table = comparison.format_markdown(outcome)
    with locks.beside(stem, wait=True):  # The three files are of one table.
        files.write_json(file("json"), dataclasses.asdict(outcome))
        files.write_text(file("md"), table)
        files.write_text(file("csv"), comparison.format_csv(outcome))
    page = comparison.write_comparison(outcome, workdir / "table.html")
    return f"{table}\nWrote {stem}.json, .csv and .md. Look at {page}."


def _row(
    description: rows_lib.Description,
    intervals: Mapping[str, bootstrap.Compared],
    whole: Mapping[str, float],
    metrics: Mapping[str, str],
) -> comparison.Row:
    return comparison.Row(
        name=description.name,
        about=description.text,
        group=description.group,
        numbers={metric: _number(x.interval) for metric, x in intervals.items()},
        whole=whole,
        difference={
            metric: _number(less)
            for metric in metrics
            if (less := intervals[metric].difference) is not None
        },
        published=dict(zip(metrics, description.paper or (), strict=False)),
    )


def _number(interval: bootstrap.Interval) -> comparison.Number:
    if not interval.is_known:
        return interval.value, None, None
    return interval.value, interval.low, interval.high


def _facts(table: Table, ok: np.ndarray, minutes: float) -> dict[str, str]:
    config, test = table.config, table.splits["test"]
    sizes = [f"{name} {len(x):,} images" for name, x in table.splits.items()]
    options = config.evaluation.evaluators.triplets
    facts = {
        "Dataset": f"{dataset_name(config.data)}: {', '.join(sizes)}",
        "Triplets": f"{options.num:,} of test, drawn by the relevance "
        f"{config.relevance.name}, {options.out_of_class:.0%} of negatives of other "
        "categories",
        "Ratings": table.ratings,
        "Queries": f"{ok.sum():,} images of test, each searched for among the others",
        "Seen in training": table.find_leakage().describe(),
        "Settings": "weights of the golden feature from ratings of training images; "
        "OASIS, joins and checkpoints chosen on validation, but the softmax "
        "network's checkpoint on training images held out",
        "Hand-made part": f"{minutes:.1f} minutes in the call that took longest",
        "Commit": version.commit(),
    }
    if left_out := len(test) - ok.sum():
        facts["Left out"] = f"{left_out:,} images of test that a row could not embed"
    return facts
