"""Puts runs side by side: config keys that differ, and metrics with intervals.

For example:
  deeprank compare-runs runs/emoji runs/emoji_lite0 --out=runs.csv
"""

import argparse
import dataclasses
import pathlib
from typing import TYPE_CHECKING

from deeprank_jax.cli import arguments
from deeprank_jax.cli.output import Result, format_csv, format_table, wrote

if TYPE_CHECKING:
    from deeprank_jax.experiments.compare_runs import Cell, RunComparison


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", type=arguments.PATH,
        help="folder of a finished run, its --workdir",
    )  # fmt: skip
    parser.add_argument(
        "--out", metavar="FILE", type=arguments.PATH,
        help="table of the metrics to write, .csv",
    )  # fmt: skip


def check(options: argparse.Namespace) -> None:
    """Checks the paths."""
    for path in options.runs:
        arguments.check_workdir(path)
    arguments.check_out(options.out, (".csv",))


def run(options: argparse.Namespace) -> Result:
    """Compares the runs."""
    from deeprank_jax import files
    from deeprank_jax.experiments.compare_runs import compare_runs

    comparison = compare_runs([pathlib.Path(path) for path in options.runs])
    text = format_comparison(comparison)
    if options.out is not None:
        with files.replacing(options.out) as file:
            file.write(_csv(comparison))
        text += f"\n\n{wrote(options.out)}"
    return Result(_to_values(comparison), text)


def format_comparison(comparison: "RunComparison") -> str:
    """Returns the comparison as two tables; a star marks the best of each metric.

    Args:
      comparison: Comparison of the runs.
    """
    config = [[key, *map(_show, values)] for key, values in comparison.config.items()]
    metrics = [[*key, *cells] for key, cells in comparison.metrics.items()]
    names = comparison.names
    differences = [
        [*key, *(_show_difference(cell) for cell in cells[1:])]
        for key, cells in comparison.metrics.items()
        if any(cell.above_first for cell in cells)
    ]
    above = [f"{name} - {names[0]}" for name in names[1:]]
    has_intervals = any(
        x.low is not None for row in comparison.metrics.values() for x in row
    )
    with_intervals = " with 95 % intervals" if has_intervals else ""
    return "\n".join(
        [
            format_table(("config", *names), config)
            if config
            else "The configs do not differ.",
            "",
            format_table(("split", "metric", *names), metrics),
            "",
            f"Values of the trained model{with_intervals}; * is the best.",
            comparison.note,
            *(
                ["", format_table(("split", "metric", *above), differences)]
                if differences
                else []
            ),
        ]
    )


def _show(value: object) -> str:
    return "-" if value is None else str(value)


def _show_difference(cell: "Cell") -> str:
    if cell.above_first is None:
        return "-"
    value, low, high = (_signed(x, cell.digits) for x in cell.above_first)
    return f"{value} [{low}, {high}]"


def _signed(value: float, digits: int) -> str:
    """Returns a number with its sign; what is rounded to 0 has none."""
    text = f"{value:+,.{digits}f}"
    return text if any(x in text for x in "123456789") else text[1:]


def _to_values(comparison: "RunComparison") -> dict[str, object]:
    names = comparison.names
    return {
        "runs": names,
        "note": comparison.note,
        "config": {
            key: dict(zip(names, values, strict=True))
            for key, values in comparison.config.items()
        },
        "metrics": [
            {
                "split": split,
                "metric": metric,
                "runs": {
                    name: dataclasses.asdict(cell)
                    for name, cell in zip(names, cells, strict=True)
                },
            }
            for (split, metric), cells in comparison.metrics.items()
        ],
    }


def _csv(comparison: "RunComparison") -> bytes:
    names = ("split", "metric", "run", "value", "low", "high", "is_best")
    rows = [
        [split, metric, name, cell.value, cell.low, cell.high, cell.is_best]
        for (split, metric), cells in comparison.metrics.items()
        for name, cell in zip(comparison.names, cells, strict=True)
    ]
    return format_csv(names, rows)
