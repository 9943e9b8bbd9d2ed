"""What did the sampler draw? Triplets, both kinds of negatives, and what failed.

Convention: a mean over the run counts each step once, however often was logged.
"""

from collections.abc import Mapping, Sequence
import dataclasses
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
    "train/sampler_failures": "how often in a batch something could not be drawn",
    "train/buffers/fill": "share of the buffers' places that are taken",
    "train/buffers/age": "steps since a record in the buffers came by, on average",
}
KINDS = {
    "in_class": "of the anchor's category",
    "out_of_class": "of another category",
}
# What can keep a triplet from being drawn as it was wished for.
CAUSES = {
    "no_positive": "the buffer of the anchor's category held nothing that is relevant "
    "to it; another anchor was drawn",
    "no_negative": "the buffers held nothing that is less relevant than the positive "
    "by the gap asked for; another anchor was drawn",
    "no_in_class_negative": "the anchor's category held nothing that is less relevant "
    "than the positive by the gap asked for; the negative came from another category",
    "no_other_category": "the buffers held no other category; the negative came from "
    "the anchor's own",
    "repeated": "no anchor with a triplet was found in 16 more draws; another triplet "
    "of the batch was used once more",
    "bad_image": "an image could not be read; another triplet of the batch was used "
    "once more",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class DrawnTriplets:
    """Triplets as the sampler drew them.

    Attributes:
      indices: `[T, 3]` ints: anchor, positive, negative. The first few of each step
        are shown; all are counted.
      relevance: `[T, 2]` float, the anchor's relevance to positive and negative.
      in_class: `[T]` bool, whether the negative is of the anchor's category.
      steps: `[T]` ints, the training step that each was drawn for.
      records: the split that the indices belong to.
      thumbnails: maps indices `[n]` to uint8 RGB `[n, S, S, 3]`.
      out_of_class: the configured share of negatives of other categories; None where
        the triplets came from a file.
    """

    indices: np.ndarray
    relevance: np.ndarray
    in_class: np.ndarray
    steps: np.ndarray
    records: Records
    thumbnails: thumbnails_lib.Thumbnails
    out_of_class: float | None

    def shown(self) -> np.ndarray:
        """Returns which of the triplets the page shows, step by step."""
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
) -> dict[str, Any] | None:
    """Returns what the template shows of the sampler, or None if nothing is known.

    Args:
      drawn: some of its triplets.
      metrics: the entries of metrics.jsonl, after `drop_idle_causes`.
      charts: of these metrics; those named in `CHARTS` are shown.
      grades: of the relevances shown.
    """
    means, order = mean_over_steps(metrics), list(CHARTS)
    charts = [chart for chart in charts if chart.title in CHARTS]
    own = [
        {
            "title": chart.title,
            "note": CHARTS[chart.title],
            "svg": markupsafe.Markup(chart.svg),
        }
        for chart in sorted(charts, key=lambda chart: order.index(chart.title))
    ]
    if drawn is None and not own:
        return None
    if drawn is not None and len(drawn.indices):
        bins = histogram.count_relevances(drawn.relevance)
        note = f"of {len(drawn.indices):,} drawn triplets"
        if bins.cut:
            least = format_number(10.0 ** bins.centers[0])
            note += f"; those above 0 but below {least} count as that"
        own.insert(
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
        "charts": own,
        "steps": _steps(drawn, grades) if drawn is not None else [],
    }


def drop_idle_causes(
    drawn: DrawnTriplets | None, metrics: Sequence[Mapping[str, Any]]
) -> Sequence[Mapping[str, Any]]:
    """Returns metrics without the causes that triplets from a file do not have.

    Args:
      drawn: says whether they are from a file, which are taken as they are.
      metrics: the entries of metrics.jsonl.
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
    """Returns the mean over the run of each thing that was logged in training.

    Args:
      metrics: of each interval the mean, logged at its last step.
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
    """Returns the share of either kind, drawn and configured."""
    logged = np.array(
        [means.get(f"train/sampler_negatives/{kind}", 0) for kind in KINDS]
    )
    if logged.sum():
        shares, where = logged / logged.sum(), "in the run"
    elif drawn is not None and len(drawn.in_class):
        inside = float(drawn.in_class.mean())
        shares = np.array([inside, 1 - inside])
        where = f"in {len(drawn.in_class):,} triplets"
    else:
        return None
    wished = None if drawn is None else drawn.out_of_class
    configured = [None, None] if wished is None else [1 - wished, wished]
    return {
        "where": where,
        "configured": wished is not None,
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
    causes = {**CAUSES, **dict.fromkeys(sorted(logged.keys() - CAUSES.keys()), "")}
    if drawn is not None and drawn.out_of_class is None:
        causes = {cause: note for cause, note in causes.items() if cause in logged}
    batch = sum(means.get(f"train/sampler_negatives/{kind}", 0.0) for kind in KINDS)
    return [
        {
            "name": cause,
            "note": note,
            "mean": format_number(logged.get(cause, 0.0)),
            "share": _percent(logged.get(cause, 0.0) / batch) if batch else "",
        }
        for cause, note in causes.items()
    ]


def _steps(drawn: DrawnTriplets, grades: query_panel.Grades) -> list[dict[str, Any]]:
    """Returns the triplets that are shown, by step."""
    show = Pictures(drawn.records, drawn.thumbnails, grades)
    chosen = drawn.shown()
    anchors = show.images(drawn.indices[chosen, 0])
    relevance = drawn.relevance[chosen]
    others = show.framed(drawn.indices[chosen, 1:].reshape(-1), relevance.reshape(-1))
    by_step: dict[int, list[dict[str, Any]]] = {}
    for i, row in enumerate(chosen):
        by_step.setdefault(int(drawn.steps[row]), []).append(
            {
                "anchor": anchors[i],
                "others": others[2 * i : 2 * i + 2],
                "relevance": [format_number(value) for value in relevance[i]],
                "gap": format_number(relevance[i, 0] - relevance[i, 1]),
                "kind": list(KINDS)[0 if drawn.in_class[row] else 1].replace("_", "-"),
            }
        )
    return [{"step": f"{step:,}", "triplets": t} for step, t in by_step.items()]


def _percent(share: float) -> str:
    if not share:
        return "0"
    return f"{share:.1%}" if share >= 0.0005 else "under 0.1%"
