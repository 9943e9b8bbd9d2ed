"""Panel of the sampler: drawn triplets, kinds of negatives and failures.

A mean over the run counts each step once, however often metrics were logged.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
from typing import Any

import markupsafe
import numpy as np

from deeprank_jax.data.records import Records
from deeprank_jax.report import curves, histogram, query_panel
from deeprank_jax.report import thumbnails as thumbnails_lib
from deeprank_jax.report.framed_images import Pictures
from deeprank_jax.report.number_format import format_number

_PER_STEP = 6
_FAILURES = "train/sampler_failures/"

CHARTS = {
    "train/sampler_negatives": "negatives of each kind in a batch",
    "train/sampler_failures": "failures to draw a triplet, per batch",
    "train/buffers/fill": "share of the buffers' slots in use",
    "train/buffers/anchors": "number of equally weighted anchors that would vary alike",
    "train/buffers/age": "mean number of steps since the buffers ingested a record",
}
KINDS = {
    "in_class": "of the anchor's category",
    "out_of_class": "of another category",
}
# Causes that keep a triplet from being drawn as configured.
CAUSES = {
    "no_positive": "the buffer of the anchor's category held no record relevant to "
    "the anchor; another anchor was drawn",
    "no_negative": "the buffers held no record less relevant than the positive by the "
    "required gap; another anchor was drawn",
    "no_in_class_negative": "the anchor's category held no record less relevant than "
    "the positive by the required gap; the negative came from another category",
    "no_other_category": "the buffers held no other category; the negative came from "
    "the anchor's category",
    "repeated": "no anchor with a triplet was found in 16 more draws; another triplet "
    "of the batch was used once more",
    "bad_image": "an image could not be read; another triplet of the batch was used "
    "once more",
}
# Those of larger groups, shown where they were logged.
GROUP_CAUSES = {
    "repeated_positive": "the buffer held no positive that the group lacks; one of its "
    "images was used once more",
    "repeated_negative": "16 draws found no negative that the group lacks; one of its "
    "images was used once more",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DrawnTriplets:
    """Triplets of the sampler, or groups of other sizes.

    Attributes:
      indices: `[T, 1 + P + N]` int: anchor, positives, negatives. The first few of each
        step are shown; all are counted.
      relevance: `[T, P + N]` float, the anchor's relevance to each.
      in_class: `[T, N]` bool, True if a negative is of the anchor's category.
      steps: `[T]` int, training step of each triplet.
      records: Records of the split that the indices belong to.
      thumbnails: Function from indices `[n]` to uint8 RGB `[n, S, S, 3]`.
      out_of_class: Configured share of negatives of other categories; None for
        triplets from a file.
    """

    indices: np.ndarray
    relevance: np.ndarray
    in_class: np.ndarray
    steps: np.ndarray
    records: Records
    thumbnails: thumbnails_lib.Thumbnails
    out_of_class: float | None

    def shown(self) -> np.ndarray:
        """Returns the triplets that the page shows, step by step, as rows."""
        parts = [
            np.flatnonzero(self.steps == step)[:_PER_STEP]
            for step in np.unique(self.steps)
        ]
        return np.concatenate([np.zeros(0, int), *parts])


def sampler_values(
    drawn: DrawnTriplets | None,
    metrics: Sequence[Mapping[str, Any]],
    charts: Sequence[curves.Chart],
    grades: query_panel.Grades,
    folder: pathlib.Path,
) -> dict[str, Any] | None:
    """Returns the template's values of the sampler, or None if there are none.

    Args:
      drawn: Some triplets of the sampler.
      metrics: Entries of metrics.jsonl, after `drop_idle_causes`.
      charts: Charts of these metrics; those named in `CHARTS` are shown.
      grades: Grades of the relevances.
      folder: Folder of the page.
    """
    means, order = mean_over_steps(metrics), list(CHARTS)
    charts = [chart for chart in charts if chart.title in CHARTS]
    figures = [
        {
            "title": chart.title,
            "note": CHARTS[chart.title],
            "svg": markupsafe.Markup(chart.svg),
        }
        for chart in sorted(charts, key=lambda chart: order.index(chart.title))
    ]
    if drawn is None and not figures:
        return None
    if drawn is not None and len(drawn.indices):
        num_positives = drawn.relevance.shape[1] - drawn.in_class.shape[1]
        bins = histogram.count_relevances(drawn.relevance, num_positives)
        note = f"of {len(drawn.indices):,} drawn {_noun(drawn)}"
        if bins.cut:
            least = format_number(10.0 ** bins.centers[0])
            note += f"; relevances above 0 but below {least} count as {least}"
        figures.insert(
            0,
            {
                "title": "relevance",
                "note": note,
                "svg": markupsafe.Markup(histogram.draw_histogram(bins)),
            },
        )
    return {
        "negatives": _negatives(drawn, means),
        "failures": _failures(drawn, means),
        "charts": figures,
        "noun": _noun(drawn),
        "steps": _steps(drawn, grades, folder) if drawn is not None else [],
    }


def _noun(drawn: DrawnTriplets | None) -> str:
    """Returns the noun of the anchors with their images."""
    is_triplet = drawn is None or drawn.relevance.shape[1] == 2
    return "triplets" if is_triplet else "groups"


def drop_idle_causes(
    drawn: DrawnTriplets | None, metrics: Sequence[Mapping[str, Any]]
) -> Sequence[Mapping[str, Any]]:
    """Returns metrics without the causes that triplets from a file do not have.

    Args:
      drawn: Triplets of the sampler, which may be from a file.
      metrics: Entries of metrics.jsonl.
    """
    if drawn is None or drawn.out_of_class is not None:
        return metrics
    idle = {_FAILURES + cause for cause in CAUSES if cause != "bad_image"}
    idle -= {name for entry in metrics for name, value in entry.items() if value}
    return [
        {name: value for name, value in entry.items() if name not in idle}
        for entry in metrics
    ]


def mean_over_steps(metrics: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Returns the mean over the run of each training metric.

    Args:
      metrics: Entries of metrics.jsonl, each the mean of an interval that ends at its
        step.
    """
    sums: dict[str, float] = {}
    steps: dict[str, int] = {}
    before = 0
    for entry in metrics:
        names = [name for name in entry if name.startswith("train/")]
        if not names:
            continue
        length, before = entry["step"] - before, entry["step"]
        for name in names:
            if isinstance(entry[name], int | float):
                sums[name] = sums.get(name, 0.0) + length * entry[name]
                steps[name] = steps.get(name, 0) + length
    return {name: sums[name] / steps[name] for name in sums if steps[name]}


def _negatives(
    drawn: DrawnTriplets | None, means: Mapping[str, float]
) -> dict[str, Any] | None:
    """Returns drawn and configured share of both kinds of negatives."""
    logged = np.array(
        [means.get(f"train/sampler_negatives/{kind}", 0) for kind in KINDS]
    )
    if logged.sum():
        shares, where = logged / logged.sum(), "in the run"
    elif drawn is not None and drawn.in_class.size:
        inside = float(drawn.in_class.mean())
        shares = np.array([inside, 1 - inside])
        where = f"in {len(drawn.in_class):,} {_noun(drawn)}"
    else:
        return None
    share = None if drawn is None else drawn.out_of_class
    configured = [None, None] if share is None else [1 - share, share]
    return {
        "where": where,
        "configured": share is not None,
        "rows": [
            {
                "name": kind.replace("_", "-"),
                "note": note,
                "share": f"{share:.1%}",
                "configured": "" if value is None else f"{value:.1%}",
            }
            for (kind, note), share, value in zip(
                KINDS.items(), shares, configured, strict=True
            )
        ],
    }


def _failures(
    drawn: DrawnTriplets | None, means: Mapping[str, float]
) -> list[dict[str, str]]:
    """Returns a row for each cause; none if no cause was logged."""
    logged = {
        name.removeprefix(_FAILURES): mean
        for name, mean in means.items()
        if name.startswith(_FAILURES)
    }
    if not logged:
        return []
    others = sorted(logged.keys() - CAUSES.keys())
    causes = {**CAUSES, **{cause: GROUP_CAUSES.get(cause, "") for cause in others}}
    if drawn is not None and drawn.out_of_class is None:
        causes = {cause: note for cause, note in causes.items() if cause in logged}
    batch = sum(means.get(f"train/sampler_negatives/{kind}", 0.0) for kind in KINDS)
    if drawn is not None:
        batch /= max(1, drawn.in_class.shape[1])
    return [
        {
            "name": cause,
            "note": note,
            "mean": format_number(logged.get(cause, 0.0)),
            "share": _percent(logged.get(cause, 0.0) / batch) if batch else "",
        }
        for cause, note in causes.items()
    ]


def _steps(
    drawn: DrawnTriplets, grades: query_panel.Grades, folder: pathlib.Path
) -> list[dict[str, Any]]:
    """Returns the displayed triplets, by step."""
    pictures = Pictures(drawn.records, drawn.thumbnails, grades, folder)
    rows = drawn.shown()
    anchors, relevance = pictures.images(drawn.indices[rows, 0]), drawn.relevance[rows]
    others = pictures.framed(drawn.indices[rows, 1:].ravel(), relevance.ravel())
    size, num_negatives = relevance.shape[1], drawn.in_class.shape[1]
    sides = ["positive"] * (size - num_negatives) + ["negative"] * num_negatives
    by_step: dict[int, list[dict[str, Any]]] = {}
    for i, row in enumerate(rows):
        group: dict[str, Any] = {
            "anchor": anchors[i],
            "others": others[size * i : size * (i + 1)],
            "sides": sides,
            "relevance": [format_number(value) for value in relevance[i]],
            "gap": "",
        }
        if num_negatives:
            gap = relevance[i, 0] - relevance[i, -num_negatives]
            kind = list(KINDS)[0 if drawn.in_class[row, 0] else 1]
            group.update(gap=format_number(gap), kind=kind.replace("_", "-"))
        by_step.setdefault(int(drawn.steps[row]), []).append(group)
    return [{"step": f"{step:,}", "triplets": t} for step, t in by_step.items()]


def _percent(share: float) -> str:
    if not share:
        return "0"
    return f"{share:.1%}" if share >= 0.0005 else "under 0.1%"
