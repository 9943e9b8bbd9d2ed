"""The report: one self-contained HTML file."""

from collections.abc import Mapping, Sequence
import dataclasses
import os
import pathlib
from typing import Any

import markupsafe
import numpy as np

from deeprank_jax import files
from deeprank_jax.data.records import Records
from deeprank_jax.evaluation.matrices import Matrix
from deeprank_jax.evaluation.rankings import Ranking, rank_records
from deeprank_jax.relevance import Relevance
from deeprank_jax.report import (
    curves,
    embedding_map,
    matrix_chart,
    metric_notes,
    metric_tables,
    query_panel,
    reconstruction_panel,
    sampler_panel,
    templates,
    verdict,
)
from deeprank_jax.report import thumbnails as thumbnails_lib
from deeprank_jax.report.framed_images import Pictures

# Queries that are shown at once, and those behind a click.
_NUM_QUERIES, _NUM_MORE, _NUM_WORST = 6, 6, 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportInputs:
    """Everything the report shows.

    Attributes:
      title: Title of the page, e.g. the name of the config.
      command: Command line of the run, or the call from Python.
      next_commands: Commands to go on with, by what they do.
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
      num_classes: Number of classes of queries by split, for the verdict.
      caveats: Sentences on what makes the numbers less certain.
      intervals: Same keys as `results`, with "low" and "high" in place of a value; for
        baselines also "model_better_by", `[value, low, high]`. Entries may be missing.
      meanings: Meaning of each metric in one line, by "evaluator/metric".
      drawn: Optional triplets of the training split.
      reconstructions: Optional pictures of some of these records, before and after the
        network restored them.
      matrices: Tables of the displayed split to draw as heat maps.
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
    num_classes: Mapping[str, int]
    next_commands: Mapping[str, str] = dataclasses.field(default_factory=dict)
    caveats: Sequence[str] = ()
    ok: np.ndarray | None = None
    ranking: Ranking | None = None
    intervals: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    meanings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    drawn: sampler_panel.DrawnTriplets | None = None
    reconstructions: reconstruction_panel.Reconstructions | None = None
    matrices: Sequence[Matrix] = ()
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
    page = templates.render(template, **_page_values(inputs, path.parent))
    # File names of an old disk may not be UTF-8; they are shown with escapes.
    with files.replacing(path) as file:
        file.write(page.encode("utf-8", "backslashreplace"))
    return path


def _page_values(inputs: ReportInputs, folder: pathlib.Path) -> dict[str, Any]:
    """Returns the values of the template."""
    records = inputs.records
    ranking = inputs.ranking or rank_records(
        records.labels[:, -1], inputs.embeddings, inputs.ok
    )
    examples = query_panel.choose_queries(
        records, ranking, _NUM_QUERIES + _NUM_MORE, seed=inputs.seed
    )
    worst = query_panel.worst_queries(records, ranking, _NUM_WORST)
    rows = query_panel.create_rows(records, inputs.relevance, ranking, examples)
    worst_rows = query_panel.create_rows(records, inputs.relevance, ranking, worst)
    grades = _find_grades(inputs, [*rows, *worst_rows])
    show = Pictures(records, inputs.thumbnails, grades, folder)
    metrics = sampler_panel.drop_idle_causes(inputs.drawn, inputs.metrics)
    metrics = metric_notes.name_levels(
        metrics, records.level_names, records.level_titles
    )
    charts = curves.create_charts(metrics)
    return {
        "title": inputs.title,
        "command": inputs.command,
        "next_commands": inputs.next_commands,
        "facts": inputs.facts,
        "caveats": inputs.caveats,
        "split": records.name,
        **_metric_values(inputs),
        "charts": [
            _chart_values(chart)
            for chart in charts
            if chart.title not in sampler_panel.CHARTS
        ],
        "legend": [
            {
                "name": grades.names[grade],
                "slot": thumbnails_lib.frame_slot(grade, grades),
                "pips": thumbnails_lib.pips(grade, grades),
            }
            for grade in range(len(grades.names))[::-1]
        ],
        "queries": show.rows(rows[:_NUM_QUERIES]),
        "more_queries": show.rows(rows[_NUM_QUERIES:]),
        "worst": show.rows(worst_rows),
        "matrices": matrix_chart.matrix_values(inputs.matrices),
        "map": _map_values(inputs, ranking.queries, show),
        "reconstructions": reconstruction_panel.reconstruction_values(
            inputs.reconstructions, records
        ),
        "sampler": sampler_panel.sampler_values(
            inputs.drawn, metrics, charts, grades, folder
        ),
    }


def _metric_values(inputs: ReportInputs) -> dict[str, Any]:
    """Returns the template's values of the verdict, the tiles and the tables."""
    results, intervals = inputs.results, inputs.intervals
    meanings = inputs.meanings
    return {
        "verdict": verdict.create_verdict(
            results, intervals, inputs.num_classes, meanings
        ),
        "headlines": metric_tables.create_headlines(results, meanings),
        "main_split": metric_tables.main_split(results),
        "head_table": metric_tables.create_head_table(results, intervals, meanings),
        "results": metric_tables.create_tables(results, intervals, meanings),
        "has_intervals": any(
            ends
            for evaluators in intervals.values()
            for metrics in evaluators.values()
            for ends in metrics.values()
        ),
        "baselines": metric_tables.describe_baselines(results),
    }


def _chart_values(chart: curves.Chart) -> dict[str, Any]:
    title, note = metric_notes.note_of(chart.title)
    return {
        "title": title,
        "note": note,
        "name": chart.title,
        "svg": markupsafe.Markup(chart.svg),
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
    return query_panel.create_grades(relevance, depth, inputs.records.level_titles)


def _map_values(
    inputs: ReportInputs, indices: np.ndarray, pictures: Pictures
) -> dict[str, Any] | None:
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
                "href": pictures.link(int(index)),
            }
            for index, (x, y) in zip(layout.indices, layout.corners, strict=True)
        ],
        "num_records": len(indices),
    }
