"""What came out of the paper's table: all systems side by side, as files and a page."""

from collections.abc import Mapping
import dataclasses
import pathlib
from typing import Any

import numpy as np
import tqdm

from deeprank_jax import evaluation, files, version
from deeprank_jax.baselines.systems import System
from deeprank_jax.evaluation import bootstrap
from deeprank_jax.experiments.paper_table import rows as rows_lib
from deeprank_jax.experiments.paper_table.dataset import Table
from deeprank_jax.report import comparison


def metrics_of(scores: Mapping[str, Any]) -> Mapping[str, str]:
    """Returns the metrics of the table, and what they are called.

    Args:
      scores: of a system, by metric.

    Raises:
      ValueError: one is not there.
    """
    is_rated = "rated/precision" in scores
    metrics = rows_lib.RATED_METRICS if is_rated else rows_lib.METRICS
    missing = [name for name in metrics if name not in scores]
    if missing:
        raise ValueError(
            f"{', '.join(missing)} cannot be measured: the test split has no "
            "triplet, or config.evaluation has other cut-offs than k=30 for triplets "
            "and 1 and 10 among those of retrieval."
        )
    return metrics


def compare(
    table: Table,
    systems: Mapping[str, System],
    scores: Mapping[str, Mapping[str, evaluation.QueryScores]],
    ok: np.ndarray,
    *,
    sweeps: Mapping[str, Any],
    minutes: float,
    command: str,
) -> comparison.Comparison:
    """Compares all systems with the first.

    Args:
      table: the dataset.
      systems: by row.
      scores: of each, from `Table.measure`.
      ok: `[N]` bool, the records of test that all were measured on.
      sweeps: as of `Comparison`.
      minutes: that the hand-made part took.
      command: as of `Comparison`.
    """
    # The one that all others are compared with comes first.
    sure = bootstrap.compare(
        {rows_lib.FIRST: scores[rows_lib.FIRST], **scores}, groups=table.test.groups
    )
    metrics = metrics_of(scores[rows_lib.FIRST])
    return comparison.Comparison(
        title=f"The paper's table, on {table.config.data.name}",
        first=rows_lib.ROWS[rows_lib.FIRST].name,
        rows=[
            _row(name, sure[name], table.measure_whole(systems[name], ok), metrics)
            for name in tqdm.tqdm(rows_lib.ROWS, desc="clusters", unit="row")
        ],
        metrics=metrics,
        published_by="paper (other data)",
        sweep_label="share of negatives of other categories",
        sweeps=sweeps,
        facts=_facts(table, ok, minutes),
        command=command,
    )


def write(
    compared: comparison.Comparison, stem: pathlib.Path, workdir: pathlib.Path
) -> None:
    """Writes the files and the page, and says where they are.

    Args:
      compared: what `compare` returns.
      stem: of the JSON, the CSV and the Markdown.
      workdir: for the page.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    # A name may hold a dot.
    file = lambda kind: stem.with_name(f"{stem.name}.{kind}")
    files.write_json(file("json"), dataclasses.asdict(compared))
    table = comparison.format_markdown(compared)
    file("md").write_text(table)
    file("csv").write_text(comparison.format_csv(compared))
    page = comparison.write_comparison(compared, workdir / "table.html")
    print(table, f"Wrote {stem}.json, .csv and .md. Look at {page}.", sep="\n")


def _row(
    name: str,
    found: Mapping[str, bootstrap.Compared],
    whole: Mapping[str, float],
    metrics: Mapping[str, str],
) -> comparison.Row:
    about = rows_lib.ROWS[name]
    return comparison.Row(
        name=about.name,
        about=about.text,
        group=about.group,
        numbers={metric: _number(x.own) for metric, x in found.items()},
        whole=whole,
        difference={
            metric: _number(less)
            for metric in metrics
            if (less := found[metric].difference) is not None
        },
        published=dict(zip(metrics, about.paper or (), strict=False)),
    )


def _number(found: bootstrap.Interval) -> comparison.Number:
    if not found.is_known:
        return found.value, None, None
    return found.value, found.low, found.high


def _facts(table: Table, ok: np.ndarray, minutes: float) -> dict[str, str]:
    config, test = table.config, table.splits["test"]
    sizes = [f"{name} {len(x):,} images" for name, x in table.splits.items()]
    options = config.evaluation.triplets
    facts = {
        "Dataset": f"{config.data.name}: {', '.join(sizes)}",
        "Triplets": f"{options.num:,} of test, drawn by the relevance "
        f"{config.relevance.name}, {options.out_of_class:.0%} of negatives of other "
        "categories",
        "Ratings": table.told,
        "Queries": f"{ok.sum():,} images of test, each searched for among the others",
        "Seen in training": table.overlap().describe(),
        "Settings": "weights of the golden feature from ratings of training images; "
        "OASIS, joins and checkpoints chosen on validation, but the softmax "
        "network's checkpoint on training images held out",
        "Hand-made part": f"{minutes:.1f} minutes in the call that took longest",
        "Commit": version.commit(),
    }
    if left_out := len(test) - ok.sum():
        facts["Left out"] = f"{left_out:,} images of test that a row could not embed"
    return facts
