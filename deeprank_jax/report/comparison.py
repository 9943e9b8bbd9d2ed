"""Comparison of many systems: a page, a Markdown table and a CSV of the same numbers.

A number is `(value, low, high)` with the ends of its interval, which are None where
there is no interval.
"""

from collections.abc import Mapping, Sequence
import csv
import dataclasses
import io
import os
import pathlib

import markupsafe
from matplotlib.axes import Axes
import numpy as np

from deeprank_jax import files
from deeprank_jax.report import chart, templates
from deeprank_jax.report.number_format import format_number, with_sign

Number = tuple[float, float | None, float | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A system of the table.

    Attributes:
      name: Name of the system.
      about: Description in a few words.
      group: Heading above the rows of one group.
      numbers: Numbers by metric: those of the page, and any others for the files.
      whole: Values by metric of metrics without intervals; for the files.
      difference: Number of the first system minus that of this one, by metric; empty
        for the first itself.
      published: Values by metric that others published, on other data; may be empty.
    """

    name: str
    about: str
    group: str
    numbers: Mapping[str, Number]
    whole: Mapping[str, float]
    difference: Mapping[str, Number]
    published: Mapping[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """Contents of the page.

    Attributes:
      title: Title of the page.
      first: Name of the row that the others are compared with.
      rows: Systems, in order.
      metrics: Titles of the metrics by name; the first two are drawn as bars.
      published_by: Source of the published numbers and their data.
      sweeps: Points of an x and its number, by metric and line.
      sweep_label: Title of the x axis of the sweeps.
      facts: Facts about the measurement, by title.
      command: Command line of the run.
    """

    title: str
    first: str
    rows: Sequence[Row]
    metrics: Mapping[str, str]
    published_by: str
    sweeps: Mapping[str, Mapping[str, Sequence[tuple[float, Number]]]]
    sweep_label: str
    facts: Mapping[str, str]
    command: str


def write_comparison(
    compared: Comparison, path: str | os.PathLike[str]
) -> pathlib.Path:
    """Writes the page, one self-contained HTML file.

    Args:
      compared: Contents of the page.
      path: Path of the file.

    Returns:
      The path of the file.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    page = templates.render(
        pathlib.Path(__file__).with_name("comparison.html"),
        compared=compared,
        format=_format_value,
        format_ends=_format_ends,
        format_difference=_format_difference,
        bars={name: _bars(compared, name) for name in [*compared.metrics][:2]},
        starts={name: _ends(compared, name)[0] for name in compared.metrics},
        best={
            name: max(row.numbers[name][0] for row in compared.rows)
            for name in compared.metrics
        },
        charts=[
            {"title": compared.metrics[name], "svg": markupsafe.Markup(svg)}
            for name, svg in _draw_sweeps(compared).items()
        ],
    )
    files.write_text(path, page)
    return path


def format_markdown(compared: Comparison) -> str:
    """Returns numbers, differences in the first metric, sweeps and facts."""
    main = next(iter(compared.metrics))
    published = [
        m for m in compared.metrics if any(m in r.published for r in compared.rows)
    ]
    heads = ["", *compared.metrics.values(), f"{compared.first} better by"]
    heads += [
        f"{compared.metrics[name]}, {compared.published_by}" for name in published
    ]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for row in compared.rows:
        cells = [row.name]
        cells += [_format_interval(row.numbers[name]) for name in compared.metrics]
        less = row.difference.get(main)
        cells.append("" if less is None else " ".join(_format_difference(less)).strip())
        cells += [
            _format_value(row.published[name]) if name in row.published else ""
            for name in published
        ]
        lines.append(f"| {' | '.join(cells)} |")
    for metric, sweep in compared.sweeps.items():
        lines += ["", *_format_sweep(compared, metric, sweep)]
    lines += ["", f"`{compared.command}`", ""]
    lines += [f"- {name}: {text}" for name, text in compared.facts.items()]
    return "\n".join(lines) + "\n"


def format_csv(compared: Comparison) -> str:
    """Returns a CSV with a line for each system and metric, and each point of a sweep.

    The points have a group of their own, and line and x as their system.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    ends = ("value", "low", "high")
    differences = [f"difference_{end}" for end in ends]
    writer.writerow(("group", "system", "metric", *ends, *differences, "published"))
    for row in compared.rows:
        for name, numbers in row.numbers.items():
            less = row.difference.get(name, ("", "", ""))
            published = row.published.get(name, "")
            writer.writerow((row.group, row.name, name, *numbers, *less, published))
        for name, value in row.whole.items():
            writer.writerow((row.group, row.name, name, value, *[""] * 6))
    for name, lines in compared.sweeps.items():
        for line, points in lines.items():
            for x, number in points:
                system = f"{line}, {x:g}"
                writer.writerow(("Sweep", system, name, *number, *[""] * 4))
    return file.getvalue()


def _format_sweep(
    compared: Comparison,
    metric: str,
    lines: Mapping[str, Sequence[tuple[float, Number]]],
) -> list[str]:
    """Returns a Markdown table with a row for each x and a column for each line."""
    numbers: dict[float, dict[str, Number]] = {}
    for line, points in lines.items():
        for x, number in points:
            numbers.setdefault(x, {})[line] = number
    heads = [f"{compared.metrics[metric]} by {compared.sweep_label}", *lines]
    table = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for x, of_lines in sorted(numbers.items()):
        cells = [_format_interval(of_lines[n]) if n in of_lines else "" for n in lines]
        table.append(f"| {' | '.join([f'{x:g}', *cells])} |")
    return table


def _bars(compared: Comparison, name: str) -> list[dict[str, float]]:
    """Returns the ends of each row's bar and interval, in percent."""
    lowest, highest = _ends(compared, name)
    place = lambda x: 100 * (x - lowest) / ((highest - lowest) or 1.0)
    return [
        {"end": place(value), "low": place(low), "width": place(high) - place(low)}
        for value, low, high in (_closed(row.numbers[name]) for row in compared.rows)
    ]


def _ends(compared: Comparison, name: str) -> tuple[float, float]:
    """Returns the numbers at which the bars of a metric begin and may end."""
    numbers = [_closed(row.numbers[name]) for row in compared.rows]
    least = min(low for _, low, _ in numbers)
    highest = max(high for _, _, high in numbers)
    # By chance half of the triplets are correct.
    return 0.5 if 0.5 < least and highest <= 1 else min(0.0, least), highest


def _draw_sweeps(compared: Comparison) -> dict[str, str]:
    svgs = {}
    for number, (name, lines) in enumerate(compared.sweeps.items()):

        def fill(axes: Axes, lines: Mapping = lines) -> None:
            for i, (label, points) in enumerate(lines.items()):
                numbers = np.array([_closed(number) for _, number in points])
                value, low, high = numbers.T
                axes.errorbar(
                    [x for x, _ in points],
                    value,
                    (value - low, high - value),
                    color=chart.COLORS[i % len(chart.COLORS)],
                    linestyle=("-", "--", ":", "-.")[i % 4],
                    marker="os^D"[i % 4],
                    markersize=4,
                    elinewidth=1,
                    capsize=2,
                    label=label,
                )
            axes.set_xlabel(compared.sweep_label)
            axes.legend(frameon=False, fontsize=8)

        label = f"{compared.metrics[name]} by {compared.sweep_label}"
        svgs[name] = chart.draw(fill, label=label, prefix=f"sweep{number}-")
    return svgs


def _closed(number: Number) -> tuple[float, float, float]:
    """Returns a number, with its value in place of missing ends."""
    value, low, high = number
    return value, value if low is None else low, value if high is None else high


def _format_value(value: float, number: Number | None = None) -> str:
    """Returns a share with three decimals, so that columns align, or a rounded score.

    Args:
      value: Value of a metric, or a difference of two.
      number: Number that the value is an end of, so that all three have one format.
    """
    if max(map(abs, _closed(number) if number else (value,))) >= 10:
        return format_number(float(round(value)))
    text = f"{value:.3f}"
    return text.replace("-", "\N{MINUS SIGN}" if float(text) else "")


def _format_ends(number: Number, *, signed: bool = False) -> str:
    """Returns the ends in brackets; "" without an interval."""
    if number[1] is None:
        return ""
    ends = [_format_value(x, number) for x in _closed(number)[1:]]
    return f"[{', '.join(map(with_sign, ends) if signed else ends)}]"


def _format_interval(number: Number) -> str:
    return f"{_format_value(number[0], number)} {_format_ends(number)}".strip()


def _format_difference(number: Number) -> tuple[str, str]:
    value = with_sign(_format_value(number[0], number))
    return value, _format_ends(number, signed=True)
