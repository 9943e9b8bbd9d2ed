"""Metrics of the page: the tiles at its top and the tables, best values marked."""

from collections.abc import Mapping, Sequence
import math
import re
from typing import Any

from deeprank_jax.evaluation import best_metric
from deeprank_jax.report.number_format import with_sign

# Metrics that a reader looks for first, by evaluator and name.
HEADLINES = (
    # Whoever lists pairs asks for them; classes may say something else, or nothing.
    ("pairs", "roc_auc"),
    ("pairs", "average_precision"),
    # Where relevance is not by classes, they are not the answer either.
    ("relevant_retrieval", "recall@1"),
    ("retrieval", "recall@1"),
    ("retrieval", "map@r"),
    ("codes", "recall@1"),
    ("codes", "map@r"),
    ("triplets", "precision"),
    ("triplets", "precision_in_class"),
    ("rated", "precision"),
)

# Names of metrics of these evaluators among those of others.
_FULL_NAMES = {
    "rated": "rated {}",
    "pairs": "{} of pairs",
    "codes": "{} of codes",
    "relevant_retrieval": "{} by relevance",
}
# Title of a column and name in a sentence of each system.
_SYSTEMS = {
    "model": ("model", "the model"),
    "untrained": ("untrained", "the untrained network"),
    "whitened": ("whitened", "the untrained network, whitened,"),
    "frozen": ("frozen", "the pretrained trunk alone"),
    "pixels": ("16x16 pixels", "the images shrunk to 16x16 pixels"),
}
# Of the network that training began with, if its trunk was trained before.
_START = {
    "untrained": ("before training", "the network before training"),
    "whitened": ("whitened", "the network before training, whitened,"),
}


def name_systems(results: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Returns title of a column and name in a sentence of each system of the results.

    Args:
      results: Values as in `ReportInputs`.
    """
    systems = {
        system
        for evaluators in results.values()
        for metrics in evaluators.values()
        for values in metrics.values()
        for system in values
    }
    names = _SYSTEMS | (_START if "frozen" in systems else {})
    order = [x for x in names if x in systems] + sorted(systems - names.keys())
    return {system: names.get(system, (system, system)) for system in order}


def describe_baselines(results: Mapping[str, Any]) -> list[str]:
    """Returns a phrase for each baseline of the results.

    Args:
      results: Values as in `ReportInputs`.
    """
    return [
        f"{text} ({system})" if system == "frozen" else text
        for system, (_, text) in name_systems(results).items()
        if system in _SYSTEMS and system != "model"
    ]


def main_split(results: Mapping[str, Any]) -> str:
    """Returns the split that the page is about; "" if there is none.

    It is test, else validation, else the first.
    """
    return next((x for x in ("test", "validation", *results) if x in results), "")


def headline_rows(
    results: Mapping[str, Any],
) -> list[tuple[str, str, Mapping[str, float]]]:
    """Returns evaluator, name and values of each headline that was measured.

    Args:
      results: Values as in `ReportInputs`.
    """
    metrics = results.get(main_split(results), {})
    return [
        (evaluator, name, values)
        for evaluator, name in HEADLINES
        if (values := metrics.get(evaluator, {}).get(name))
    ]


def full_name(evaluator: str, name: str) -> str:
    """Returns the name of a metric where those of several evaluators are shown.

    Args:
      evaluator: Name of the evaluator.
      name: Name of the metric.
    """
    return _FULL_NAMES.get(evaluator, "{}").format(name)


def create_headlines(
    results: Mapping[str, Any], meanings: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Returns the tiles of the most important metrics of the main split.

    Args:
      results: Values as in `ReportInputs`.
      meanings: Meaning of each metric by "evaluator/metric".
    """
    return [
        {
            "name": full_name(evaluator, name),
            "explanation": meanings.get(f"{evaluator}/{name}", ""),
            "value": format_metric(name, values.get("model")),
            "bars": [
                {
                    "name": system,
                    "text": format_metric(name, value),
                    "width": f"{100 * min(max(value, 0.0), 1.0):.1f}",
                }
                for system, value in values.items()
                if math.isfinite(value)
            ],
        }
        for evaluator, name, values in headline_rows(results)
    ]


def create_head_table(
    results: Mapping[str, Any],
    intervals: Mapping[str, Any],
    meanings: Mapping[str, str],
) -> dict[str, Any] | None:
    """Returns the table of the headlines, or None if there are none.

    Args:
      results: Values as in `ReportInputs`.
      intervals: Intervals as in `ReportInputs`.
      meanings: Meaning of each metric by "evaluator/metric".
    """
    rows = [
        (full_name(evaluator, name), evaluator, name, values)
        for evaluator, name, values in headline_rows(results)
    ]
    if not rows:
        return None
    return _create_table(rows, intervals.get(main_split(results), {}), meanings)


def create_tables(
    results: Mapping[str, Any],
    intervals: Mapping[str, Any],
    meanings: Mapping[str, str],
) -> list[dict[str, Any]]:
    """Returns each split's tables, one per evaluator, the headlines as first rows.

    Args:
      results: Values as in `ReportInputs`.
      intervals: Intervals as in `ReportInputs`.
      meanings: Meaning of each metric by "evaluator/metric".

    Returns:
      The splits, the main one first, with "name", "num_metrics" and "tables".
    """
    splits, main = [], main_split(results)
    for split in sorted(results, key=lambda split: split != main):
        tables = []
        for evaluator, metrics in results[split].items():
            order = [name for place, name in HEADLINES if place == evaluator]
            first = {name: metrics[name] for name in order if name in metrics}
            rows = [(n, evaluator, n, x) for n, x in {**first, **metrics}.items()]
            table = _create_table(rows, intervals.get(split, {}), meanings)
            tables.append({"evaluator": evaluator, **table})
        num_metrics = sum(len(table["rows"]) for table in tables)
        splits.append({"name": split, "num_metrics": num_metrics, "tables": tables})
    return splits


def format_metric(name: str, value: float | None) -> str:
    """Returns a metric in three decimals, or as a whole number if it is one.

    Args:
      name: Name of the metric.
      value: Value; None for a system without one.
    """
    if value is None or not math.isfinite(value):
        return "\N{EN DASH}"
    if name.startswith("num_") or re.fullmatch(r"score_at_\d+", name):
        return f"{value:,.0f}".replace("-", "\N{MINUS SIGN}")
    return f"{value:.3f}".replace("-", "\N{MINUS SIGN}")


def format_difference(name: str, difference: Sequence[float]) -> str:
    """Returns a difference of two systems with its interval, all with signs.

    Args:
      name: Name of the metric.
      difference: Value, lower and upper end.
    """
    value, low, high = (with_sign(format_metric(name, x)) for x in difference)
    return f"{value} [{low},\N{NO-BREAK SPACE}{high}]"


def _create_table(
    rows: Sequence[tuple[str, str, str, Mapping[str, float]]],
    intervals: Mapping[str, Any],
    meanings: Mapping[str, str],
) -> dict[str, Any]:
    """Returns a table of rows of title, evaluator, metric and values."""
    systems = list(dict.fromkeys(s for *_, values in rows for s in values))
    return {
        "systems": systems,
        "rows": [
            {
                "name": title,
                "explanation": meanings.get(f"{evaluator}/{name}", ""),
                "cells": _create_cells(
                    name,
                    systems,
                    values,
                    intervals.get(evaluator, {}).get(name, {}),
                    is_ranked=best_metric.is_ranked(evaluator),
                ),
            }
            for title, evaluator, name, values in rows
        ],
    }


def _create_cells(
    name: str,
    systems: Sequence[str],
    values: Mapping[str, float],
    intervals: Mapping[str, Any],
    *,
    is_ranked: bool,
) -> list[dict[str, Any]]:
    """Returns each value as text, its interval, and True if it is the best."""
    finite = [v for v in values.values() if math.isfinite(v)]
    compares = is_ranked and len(set(finite)) > 1 and not name.startswith("num_")
    return [
        {
            "text": format_metric(name, values.get(system)),
            "interval": _format_interval(
                name, intervals.get(system), is_ranked=is_ranked
            ),
            "best": compares and values.get(system) == max(finite),
        }
        for system in systems
    ]


def _format_interval(
    name: str, ends: Mapping[str, Any] | None, *, is_ranked: bool
) -> str:
    """Returns the model's interval, or the difference between model and baseline."""
    if ends is None:
        return ""
    if is_ranked and "model_better_by" in ends:
        return format_difference(name, ends["model_better_by"])
    low, high = format_metric(name, ends["low"]), format_metric(name, ends["high"])
    return f"[{low},\N{NO-BREAK SPACE}{high}]"
