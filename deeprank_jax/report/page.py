"""Puts the report together: one HTML file that needs nothing else."""

from collections.abc import Mapping, Sequence
import dataclasses
import math
import os
import pathlib
import re
from typing import Any

import markupsafe
import numpy as np

from deeprank_jax.data.records import Records
from deeprank_jax.relevance import Relevance
from deeprank_jax.report import (
    curves,
    embedding_map,
    query_panel,
    sampler_panel,
    templates,
)
from deeprank_jax.report import thumbnails as thumbnails_lib
from deeprank_jax.report.framed_images import Pictures
from deeprank_jax.report.number_format import with_sign

_NUM_QUERIES, _NUM_WORST = 12, 8

_EXPLANATIONS = (
    (r"recall@1", "share of queries whose nearest image is of their own class"),
    (r"recall@(\d+)", r"share with an image of their own class among the \1 nearest"),
    (r"map@r", "mean average precision at R, R being the images of the query's class"),
    (r"precision@(\d+)", r"which share of the \1 nearest is of the query's own class"),
    (r"r_precision", "the same, of as many as the query's class has"),
    (r"mrr", "1 by the rank of the first image of the query's class, on average"),
    (r"ndcg@1", "graded relevance of the nearest image; 1 is the best there is"),
    (
        r"ndcg@(\d+)",
        r"graded relevance of the \1 nearest, by rank; 1 is the best ranking",
    ),
    (r"precision", "share of triplets whose positive is nearer than their negative"),
    (r"rated precision", "the same, of the triplets that people rated"),
    (r"precision_in_class", "precision where the negative is of the anchor's category"),
    (r"precision_out_of_class", "precision where it is of another category"),
    (
        r"score_at_(\d+)",
        r"right less wrong triplets, of those with an image among the \1 nearest",
    ),
    (r"score_at_(\d+)_share", "the score divided by how many triplets it counts"),
    (r"num_(\w+)", r"how many \1 were measured"),
)
_HEADLINES = ("recall@1", "map@r", "precision", "precision_in_class", "rated precision")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportInputs:
    """Everything the report shows.

    Attributes:
      title: of the page, e.g. the name of the config.
      command: the command line that was run.
      facts: what was run, in words: config, dataset, commit, wall time and the like.
      results: `{split: {evaluator: {metric: {system: value}}}}`, the systems being
        "model", "untrained" and "pixels"; larger is better.
      intervals: the same, with in place of a value "low" and "high", and of what is not
        the model "model_better_by" `[value, low, high]`; what is left out has none.
      metrics: the entries of metrics.jsonl: "step" and any other names.
      embeddings: `[N, D]` float32 of the split to look at.
      records: that split.
      relevance: how similar its records should be.
      thumbnails: maps indices `[n]` of its records to uint8 RGB `[n, S, S, 3]`.
      ok: optional `[N]` bool, the records whose image could be read.
      drawn: optional triplets of the training split.
      seed: of the choice of queries and of the map.
    """

    title: str
    command: str
    facts: Mapping[str, str]
    results: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]
    metrics: Sequence[Mapping[str, Any]]
    embeddings: np.ndarray
    records: Records
    relevance: Relevance
    thumbnails: thumbnails_lib.Thumbnails
    ok: np.ndarray | None = None
    intervals: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    drawn: sampler_panel.DrawnTriplets | None = None
    seed: int = 0


def write_report(inputs: ReportInputs, path: str | os.PathLike[str]) -> pathlib.Path:
    """Writes the report.

    Args:
      inputs: what to show.
      path: the file, or a folder in which it is called `index.html`.

    Returns:
      The file written.
    """
    path = pathlib.Path(path)
    path = path if path.suffix == ".html" else path / "index.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    template = pathlib.Path(__file__).with_name("page.html")
    page = templates.render(template, **_page_values(inputs))
    # A name that is not UTF-8, as of a file on an old disk, is shown by its escapes.
    path.write_text(page, encoding="utf-8", errors="backslashreplace")
    return path


def _page_values(inputs: ReportInputs) -> dict[str, Any]:
    """Returns what the template fills in."""
    records = inputs.records
    ranking = query_panel.rank_records(records, inputs.embeddings, inputs.ok)
    chosen = query_panel.choose_queries(
        records, ranking, _NUM_QUERIES, seed=inputs.seed
    )
    worst = query_panel.worst_queries(records, ranking, _NUM_WORST)
    rows = query_panel.create_rows(records, inputs.relevance, ranking, chosen)
    worst_rows = query_panel.create_rows(records, inputs.relevance, ranking, worst)
    grades = _find_grades(inputs, [*rows, *worst_rows])
    show = Pictures(records, inputs.thumbnails, grades)
    metrics = sampler_panel.drop_idle_causes(inputs.drawn, inputs.metrics)
    charts = curves.create_charts(metrics)
    return {
        "title": inputs.title,
        "command": inputs.command,
        "facts": inputs.facts,
        "split": records.name,
        "headlines": _headlines(inputs.results),
        "results": _result_tables(inputs.results, inputs.intervals),
        "has_intervals": bool(inputs.intervals),
        "charts": [
            {"title": c.title, "svg": markupsafe.Markup(c.svg)}
            for c in charts
            if c.title not in sampler_panel.CHARTS
        ],
        "legend": [
            {
                "name": grades.names[grade],
                "slot": thumbnails_lib.frame_slot(grade, grades),
                "pips": thumbnails_lib.pips(grade, grades),
            }
            for grade in range(len(grades.names))[::-1]
        ],
        "queries": show.rows(rows),
        "worst": show.rows(worst_rows),
        "map": _map_values(inputs, ranking.queries),
        "sampler": sampler_panel.sampler_values(inputs.drawn, metrics, charts, grades),
    }


def _find_grades(
    inputs: ReportInputs, rows: Sequence[query_panel.Row]
) -> query_panel.Grades:
    """Finds grades that serve every picture of the page."""
    relevance, depth = query_panel.pairs_of_rows(inputs.records, rows)
    if inputs.drawn is not None:
        shown = inputs.drawn.shown()
        labels = inputs.drawn.records.labels[inputs.drawn.indices[shown]]
        drawn_depth = query_panel.shared_depth(labels[:, :1], labels[:, 1:])
        relevance = np.append(relevance, inputs.drawn.relevance[shown])
        depth = np.append(depth, drawn_depth)
    return query_panel.create_grades(relevance, depth, inputs.records.level_names)


def _map_values(inputs: ReportInputs, indices: np.ndarray) -> dict[str, Any] | None:
    drawn = embedding_map.create_map(
        inputs.embeddings, indices, inputs.thumbnails, seed=inputs.seed
    )
    if drawn is None:
        return None
    return {
        "src": markupsafe.Markup(thumbnails_lib.encode_image(drawn.image, quality=80)),
        "size": f"{100 * drawn.size:.2f}",
        "places": [
            {
                "left": f"{100 * x:.2f}",
                "top": f"{100 * y:.2f}",
                "title": inputs.records.label_name(int(index)),
            }
            for index, (x, y) in zip(drawn.indices, drawn.corners, strict=True)
        ],
        "num_records": len(indices),
    }


def _result_tables(
    results: Mapping[str, Any], intervals: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Returns a table for each split and evaluator, the test split first."""
    tables = []
    for split in sorted(results, key=lambda split: split != "test"):
        for evaluator, metrics in results[split].items():
            systems = list(dict.fromkeys(s for row in metrics.values() for s in row))
            sure = intervals.get(split, {}).get(evaluator, {})
            tables.append(
                {
                    "split": split,
                    "evaluator": evaluator,
                    "systems": systems,
                    "rows": [
                        {
                            "name": name,
                            "explanation": _explain(name),
                            "cells": _cells(name, systems, row, sure.get(name, {})),
                        }
                        for name, row in metrics.items()
                    ],
                }
            )
    return tables


def _cells(
    name: str,
    systems: Sequence[str],
    values: Mapping[str, float],
    intervals: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Returns each value as text, how sure it is, and which are the best of several."""
    known = [v for v in values.values() if math.isfinite(v)]
    compares = len(set(known)) > 1 and not name.startswith("num_")
    return [
        {
            "text": _format(name, values.get(system)),
            "sure": _format_sure(name, intervals.get(system)),
            "best": compares and values.get(system) == max(known),
        }
        for system in systems
    ]


def _format_sure(name: str, ends: Mapping[str, Any] | None) -> str:
    """Returns the model's interval, or by how much the model is better than another."""
    if ends is None:
        return ""
    if "model_better_by" not in ends:
        low, high = _format(name, ends["low"]), _format(name, ends["high"])
        return f"[{low},\N{NO-BREAK SPACE}{high}]"
    value, low, high = (with_sign(_format(name, x)) for x in ends["model_better_by"])
    return f"{value} [{low},\N{NO-BREAK SPACE}{high}]"


def _format(name: str, value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "\N{EN DASH}"
    if name.startswith("num_") or re.fullmatch(r"score_at_\d+", name):
        return f"{value:,.0f}".replace("-", "\N{MINUS SIGN}")
    return f"{value:.3f}".replace("-", "\N{MINUS SIGN}")


def _explain(name: str) -> str:
    """Returns what a metric means, in one line; empty for an unknown one."""
    for pattern, text in _EXPLANATIONS:
        if match := re.fullmatch(pattern, name):
            return match.expand(text).replace("_", " ")
    return ""


def _headlines(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the few numbers that matter most, of the test split if there is one."""
    if not results:
        return []
    split = "test" if "test" in results else list(results)[-1]
    metrics = {
        # Its metrics are called as those of the drawn triplets are.
        f"rated {name}" if evaluator == "rated" else name: values
        for evaluator, found in results[split].items()
        for name, values in found.items()
    }
    return [
        {
            "name": name,
            "explanation": _explain(name),
            "value": _format(name, metrics[name].get("model")),
            "bars": [
                {
                    "name": system,
                    "text": _format(name, value),
                    "width": f"{100 * min(max(value, 0.0), 1.0):.1f}",
                }
                for system, value in metrics[name].items()
                if math.isfinite(value)
            ],
        }
        for name in _HEADLINES
        if name in metrics
    ]
