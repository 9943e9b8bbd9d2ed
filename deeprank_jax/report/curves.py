"""Training curves from metrics.jsonl, one chart for all variants of a metric."""

from collections.abc import Mapping, Sequence
import dataclasses
import re

from matplotlib.axes import Axes
import numpy as np

from deeprank_jax.report import chart

_MAX_POINTS = 400
# Variants of one metric that share a chart.
_VARIANT = re.compile(r"(@\d+|_(?:in|out_of)_class)$")
# Counts and shares, whose axis begins at 0.
_FROM_ZERO = ("train/sampler_", "train/buffers/")
# A longer legend would cover the lines.
_MAX_INSIDE = 4
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
      metrics: Entries of metrics.jsonl, with "step" and any other names. Values that
        are no numbers, constant counts (`num_...`) and times of day are left out.

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
    is_count = name.rsplit("/", 1)[-1].startswith("num_")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and not is_count and name not in ("step", "time", "wall_time")


def _group(name: str) -> str:
    parts = _VARIANT.sub("", name).split("/")
    # Shares per level, e.g. train/positives/emoji, share a chart; the metrics of the
    # buffers have different units.
    joins = parts[0] == "train" and parts[1:2] != ["buffers"]
    return "/".join(parts[:2] if joins else parts)


def _order(title: str) -> tuple[int, bool, str]:
    places = [i for i, name in enumerate(_FIRST) if title.startswith(name)]
    return (places[0] if places else len(_FIRST), title.startswith("train"), title)


def _thin(points: np.ndarray) -> np.ndarray:
    """Returns at most 400 points `[P, 2]`, each the mean of its neighbours."""
    if len(points) <= _MAX_POINTS:
        return points
    return np.stack([part.mean(axis=0) for part in np.array_split(points, _MAX_POINTS)])


def _draw(title: str, lines: Mapping[str, np.ndarray], prefix: str) -> str:
    def fill(axes: Axes) -> None:
        for i, (name, points) in enumerate(lines.items()):
            axes.plot(
                *points.T,
                color=chart.COLORS[i % len(chart.COLORS)],
                linewidth=1.6,
                linestyle=("-", "--", ":", "-.")[i % 4],
                marker="o" if len(points) < 25 else None,
                markersize=3,
                label=name.removeprefix(title).lstrip("/_") or name.split("/")[-1],
            )
        axes.set_xlabel("step")
        axes.locator_params(nbins=5)
        if title.startswith(_FROM_ZERO):
            highest = max(points[:, 1].max() for points in lines.values())
            axes.set_ylim(0.0, 1.08 * highest if highest > 0 else 1.0)
        if len(lines) > _MAX_INSIDE:
            axes.legend(
                frameon=False,
                fontsize=8,
                loc="lower left",
                bbox_to_anchor=(0.0, 1.0),
                ncols=2,
            )
        elif len(lines) > 1:
            axes.legend(frameon=False, fontsize=8)

    return chart.draw(fill, label=f"{title} over the steps", prefix=prefix)
