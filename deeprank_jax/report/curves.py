"""Training curves from metrics.jsonl, as SVG that takes the page's text colour."""

from collections.abc import Mapping, Sequence
import dataclasses
import html
import io
import re

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
import numpy as np

# Legible on white and on black.
_COLORS = ("#3a82c9", "#d97e22", "#2c9c74", "#b35fc4", "#c9503f", "#8a8a2b")
# Stands for the text colour until the page's own takes its place.
_INK = "#010203"
_MAX_POINTS = 400
# Variants of one metric that share a chart.
_VARIANT = re.compile(r"(@\d+|_(?:in|out_of)_class)$")
_FIRST = (
    "train/loss",
    "train/active_share",
    "train/images_per_second",
    "train/stall",
    "train/mean_distance",
    "train/effective_rank",
)


@dataclasses.dataclass(frozen=True)
class Chart:
    """One chart: its title, a line for each variant, and the picture."""

    title: str
    names: tuple[str, ...]
    svg: str


def create_charts(metrics: Sequence[Mapping[str, float]]) -> list[Chart]:
    """Draws every metric over the steps, variants of a metric in one chart.

    Args:
      metrics: dicts with "step" and any other names, as metrics.jsonl has them. What
        is no number, constant counts (`num_...`) and times of day are left out.

    Returns:
      The charts, the loss first; none if there are no metrics.
    """
    series: dict[str, list[tuple[float, float]]] = {}
    for entry in metrics:
        for name, value in entry.items():
            if _is_drawn(name, value):
                series.setdefault(name, []).append((float(entry["step"]), float(value)))
    groups: dict[str, list[str]] = {}
    for name in series:
        groups.setdefault(_group(name), []).append(name)
    charts = []
    for number, title in enumerate(sorted(groups, key=_order)):
        lines = {name: _thin(np.array(series[name])) for name in groups[title]}
        svg = _draw(title, lines, prefix=f"chart{number}-")
        charts.append(Chart(title, tuple(lines), svg))
    return charts


def _is_drawn(name: str, value: object) -> bool:
    counted = name.rsplit("/", 1)[-1].startswith("num_")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and not counted and name not in ("step", "time", "wall_time")


def _group(name: str) -> str:
    parts = _VARIANT.sub("", name).split("/")
    # Shares per level, e.g. train/positives/emoji, belong into one chart.
    return "/".join(parts[:2] if parts[0] == "train" else parts)


def _order(title: str) -> tuple[int, bool, str]:
    known = [i for i, name in enumerate(_FIRST) if title.startswith(name)]
    return (known[0] if known else len(_FIRST), title.startswith("train"), title)


def _thin(points: np.ndarray) -> np.ndarray:
    """Returns at most 400 points `[P, 2]`, each the mean of its neighbours."""
    if len(points) <= _MAX_POINTS:
        return points
    return np.stack([part.mean(axis=0) for part in np.array_split(points, _MAX_POINTS)])


def _draw(title: str, lines: Mapping[str, np.ndarray], prefix: str) -> str:
    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": title,
        "text.color": _INK,
        "axes.labelcolor": _INK,
        "axes.edgecolor": _INK,
        "xtick.color": _INK,
        "ytick.color": _INK,
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    buffer = io.StringIO()
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(4.6, 2.5), layout="constrained")
        figure.patch.set_alpha(0.0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0.0)
        axes.grid(axis="y", color="#888888", alpha=0.25, linewidth=0.7)
        for i, (name, points) in enumerate(lines.items()):
            axes.plot(
                *points.T,
                color=_COLORS[i % len(_COLORS)],
                linewidth=1.6,
                linestyle=("-", "--", ":", "-.")[i % 4],
                marker="o" if len(points) < 25 else None,
                markersize=3,
                label=name.removeprefix(title).lstrip("/_") or name.split("/")[-1],
            )
        axes.set_xlabel("step")
        axes.locator_params(nbins=5)
        if len(lines) > 1:
            axes.legend(frameon=False, fontsize=8)
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    return _for_page(buffer.getvalue(), title, prefix)


def _for_page(svg: str, title: str, prefix: str) -> str:
    """Makes a whole SVG file a part of a page that may hold others like it."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = svg.replace(_INK, "currentColor")
    for reference in 'id="', "url(#", 'href="#':
        svg = svg.replace(reference, reference + prefix)
    label = html.escape(f"{title} over the steps", quote=True)
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
