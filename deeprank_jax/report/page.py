"""The report: one self-contained HTML file."""

from collections.abc import Mapping, Sequence
import dataclasses
import math
import os
import pathlib
import re
from typing import Any

import markupsafe
import numpy as np

from deeprank_jax import files
from deeprank_jax.data.records import Records
from deeprank_jax.evaluation.rankings import Ranking, rank_records
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

# Metrics of the tiles at the top of the page, by evaluator and name.
_HEADLINES = (
    ("retrieval", "recall@1"),
    ("retrieval", "map@r"),
    ("triplets", "precision"),
    ("triplets", "precision_in_class"),
    ("rated", "precision"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportInputs:
    """Everything the report shows.

    Attributes:
      title: Title of the page, e.g. the name of the config.
      command: Command line of the run.
      facts: Facts about the run by title: dataset, network, commit, time and the like.
      results: `{split: {evaluator: {metric: {system: value}}}}`, the systems being
        "model", "untrained" and "pixels"; larger is better.
      metrics: Entries of metrics.jsonl: "step" and any other names.
      embeddings: `[N, D]` float32, embeddings of the displayed split.
      records: Records of the displayed split.
      relevance: Relevance of two of these records.
      thumbnails: Function from indices `[n]` of these records to uint8 RGB images
        `[n, S, S, 3]`.
      ok: Optional `[N]` bool, the records whose image could be read.
      ranking: Nearest neighbours of these records; None computes them.
      intervals: Same keys as `results`, with "low" and "high" in place of a value; for
        baselines also "model_better_by", `[value, low, high]`. Entries may be missing.
      meanings: Meaning of each metric in one line, by "evaluator/metric".
      drawn: Optional triplets of the training split.
      seed: Seed of the choice of queries and of the map.
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
    ranking: Ranking | None = None
    intervals: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    meanings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    drawn: sampler_panel.DrawnTriplets | None = None
    seed: int = 0


def write_report(inputs: ReportInputs, path: str | os.PathLike[str]) -> pathlib.Path:
    """Writes the report.

    Args:
      inputs: Contents of the report.
      path: Path of the file, or of a folder in which it is called `index.html`.

    Returns:
      The path of the file.
    """
    path = pathlib.Path(path)
    path = path if path.suffix == ".html" else path / "index.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    template = pathlib.Path(__file__).with_name("page.html")
    page = templates.render(template, **_page_values(inputs))
    # File names of an old disk may not be UTF-8; they are shown with escapes.
    with files.replacing(path) as file:
        file.write(page.encode("utf-8", "backslashreplace"))
    return path


def _page_values(inputs: ReportInputs) -> dict[str, Any]:
    """Returns the values of the template."""
    records = inputs.records
    ranking = inputs.ranking or rank_records(
        records.labels[:, -1], inputs.embeddings, inputs.ok
    )
    examples = query_panel.choose_queries(
        records, ranking, _NUM_QUERIES, seed=inputs.seed
    )
    worst = query_panel.worst_queries(records, ranking, _NUM_WORST)
    rows = query_panel.create_rows(records, inputs.relevance, ranking, examples)
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
        "headlines": _headlines(inputs.results, inputs.meanings),
        "results": _result_tables(inputs.results, inputs.intervals, inputs.meanings),
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
    """Returns grades for all pictures of the page."""
    relevance, depth = query_panel.pairs_of_rows(inputs.records, rows)
    if inputs.drawn is not None:
        rows_shown = inputs.drawn.shown()
        labels = inputs.drawn.records.labels[inputs.drawn.indices[rows_shown]]
        drawn_depth = query_panel.shared_depth(labels[:, :1], labels[:, 1:])
        relevance = np.append(relevance, inputs.drawn.relevance[rows_shown])
        depth = np.append(depth, drawn_depth)
    return query_panel.create_grades(relevance, depth, inputs.records.level_names)


def _map_values(inputs: ReportInputs, indices: np.ndarray) -> dict[str, Any] | None:
    layout = embedding_map.create_map(
        inputs.embeddings, indices, inputs.thumbnails, seed=inputs.seed
    )
    if layout is None:
        return None
    return {
        "src": markupsafe.Markup(thumbnails_lib.encode_image(layout.image, quality=80)),
        "size": f"{100 * layout.size:.2f}",
        "places": [
            {
                "left": f"{100 * x:.2f}",
                "top": f"{100 * y:.2f}",
                "title": inputs.records.label_name(int(index)),
            }
            for index, (x, y) in zip(layout.indices, layout.corners, strict=True)
        ],
        "num_records": len(indices),
    }


def _result_tables(
    results: Mapping[str, Any],
    intervals: Mapping[str, Any],
    meanings: Mapping[str, str],
) -> list[dict[str, Any]]:
    """Returns a table for each split and evaluator, the test split first."""
    tables = []
    for split in sorted(results, key=lambda split: split != "test"):
        for evaluator, metrics in results[split].items():
            systems = list(dict.fromkeys(s for row in metrics.values() for s in row))
            ends = intervals.get(split, {}).get(evaluator, {})
            tables.append(
                {
                    "split": split,
                    "evaluator": evaluator,
                    "systems": systems,
                    "rows": [
                        {
                            "name": name,
                            "explanation": meanings.get(f"{evaluator}/{name}", ""),
                            "cells": _cells(name, systems, row, ends.get(name, {})),
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
    """Returns each value as text, its interval, and True if it is the best."""
    finite = [v for v in values.values() if math.isfinite(v)]
    compares = len(set(finite)) > 1 and not name.startswith("num_")
    return [
        {
            "text": _format(name, values.get(system)),
            "interval": _format_interval(name, intervals.get(system)),
            "best": compares and values.get(system) == max(finite),
        }
        for system in systems
    ]


def _format_interval(name: str, ends: Mapping[str, Any] | None) -> str:
    """Returns the model's interval, or the difference between model and baseline."""
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


def _headlines(
    results: Mapping[str, Any], meanings: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Returns the most important metrics, of the test split if there is one."""
    if not results:
        return []
    split = "test" if "test" in results else list(results)[-1]
    return [
        {
            "name": f"rated {name}" if evaluator == "rated" else name,
            "explanation": meanings.get(f"{evaluator}/{name}", ""),
            "value": _format(name, values.get("model")),
            "bars": [
                {
                    "name": system,
                    "text": _format(name, value),
                    "width": f"{100 * min(max(value, 0.0), 1.0):.1f}",
                }
                for system, value in values.items()
                if math.isfinite(value)
            ],
        }
        for evaluator, name in _HEADLINES
        if (values := results[split].get(evaluator, {}).get(name))
    ]
