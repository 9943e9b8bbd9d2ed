"""The page, the Markdown and the CSV of a comparison hold the same numbers."""

import csv
import dataclasses
import re

from helpers.browser import open_in_browser
from matplotlib.figure import Figure
import numpy as np
import pytest

from deeprank_jax.report import comparison

METRICS = {"precision": "Precision", "score": "Score"}


def create_row(name, group, precision, score, published=None, is_first=False):
    numbers = {
        "precision": (precision, precision - 0.02, precision + 0.01),
        "score": (score, score - 100, score + 200),
    }
    difference = {
        "precision": (0.9 - precision, 0.88 - precision, 0.91 - precision),
        "score": (7000 - score, 6900 - score, 7200 - score),
    }
    return comparison.Row(
        name=name,
        about=f"how <{name}> was made",
        group=group,
        numbers=numbers,
        whole={"nmi": 0.5},
        difference={} if is_first else difference,
        published=published or {},
    )


@pytest.fixture
def compared():
    return comparison.Comparison(
        title="A table <of> systems",
        first="Ours",
        rows=[
            create_row("Pixels", "Hand-made", 0.6, 2000.0, {"precision": 0.62}),
            create_row("HOG & more", "Hand-made", 0.7, 3000.0),
            create_row("Ours", "Networks", 0.9, 7000.0, is_first=True),
        ],
        metrics=METRICS,
        published_by="paper",
        sweeps={
            "precision": {
                "importance": [(0.0, (0.8, 0.78, 0.81)), (1.0, (0.9, 0.88, 0.91))],
                "uniform": [(0.0, (0.7, 0.68, 0.71)), (0.5, (0.85, 0.83, 0.86))],
            }
        },
        sweep_label="share of negatives",
        facts={"Dataset": "600 images"},
        command="deeprank paper-table",
    )


def test_markdown_has_a_line_for_each_system(compared):
    lines = comparison.format_markdown(compared).splitlines()
    assert lines[0] == "|  | Precision | Score | Ours better by | Precision, paper |"
    assert lines[1] == "|---|---|---|---|---|"
    assert lines[2] == (
        "| Pixels | 0.600 [0.580, 0.610] | 2,000 [1,900, 2,200] "
        "| +0.300 [+0.280, +0.310] | 0.620 |"
    )
    assert lines[4] == "| Ours | 0.900 [0.880, 0.910] | 7,000 [6,900, 7,200] |  |  |"
    assert lines[5:] == [
        "",
        "| Precision by share of negatives | importance | uniform |",
        "|---|---|---|",
        "| 0 | 0.800 [0.780, 0.810] | 0.700 [0.680, 0.710] |",
        "| 0.5 |  | 0.850 [0.830, 0.860] |",
        "| 1 | 0.900 [0.880, 0.910] |  |",
        "",
        "`deeprank paper-table`",
        "",
        "- Dataset: 600 images",
    ]


def test_the_csv_has_a_line_for_each_number(compared):
    rows = list(csv.DictReader(comparison.format_csv(compared).splitlines()))
    assert len(rows) == 9 + 4
    pixels = rows[0]
    assert (pixels["system"], pixels["metric"]) == ("Pixels", "precision")
    assert [float(pixels[k]) for k in ("value", "low", "high")] == [0.6, 0.58, 0.61]
    assert float(pixels["difference_low"]) == 0.88 - 0.6
    assert pixels["published"] == "0.62"
    assert (rows[2]["metric"], rows[2]["value"], rows[2]["low"]) == ("nmi", "0.5", "")
    ours = rows[6]
    assert (ours["difference_value"], ours["published"]) == ("", "")
    point = rows[11]
    named = [point[key] for key in ("group", "system", "metric")]
    assert named == ["Sweep", "uniform, 0", "precision"]
    assert [float(point[k]) for k in ("value", "low", "high")] == [0.7, 0.68, 0.71]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ((0.8, 0.75, 0.85), "0.800 [0.750, 0.850]"),
        ((-0.0004, -0.0002, 0.0), "0.000 [0.000, 0.000]"),
        ((-0.25, -0.5, 0.1), "-0.250 [-0.500, 0.100]"),
        ((7.0, -2.0, 14.0), "7 [-2, 14]"),
        ((1234.5, 0.4, 2000.0), "1,234 [0, 2,000]"),
        ((0.8, None, None), "0.800"),
    ],
)
def test_a_number_and_its_ends_are_written_alike(number, text):
    assert comparison._format_interval(number) == text.replace("-", "\N{MINUS SIGN}")


def test_error_bars_end_where_the_intervals_do(compared, monkeypatch):
    drawn = []

    def draw(fill, **_):
        axes = Figure().add_subplot()
        fill(axes)
        drawn.append(axes.containers)
        return "<svg></svg>"

    monkeypatch.setattr(comparison.chart, "draw", draw)
    comparison._draw_sweeps(compared)
    ((importance, uniform),) = drawn
    for container, line in ((importance, "importance"), (uniform, "uniform")):
        points = compared.sweeps["precision"][line]
        _, _, (bars,) = container
        for (x, (_, low, high)), bar in zip(points, bars.get_segments(), strict=True):
            np.testing.assert_allclose(bar, [[x, low], [x, high]])


def test_a_number_may_have_no_interval(compared, tmp_path):
    row = create_row("One class", "Hand-made", 0.6, 2000.0)
    unknown = {m: (value, None, None) for m, (value, _, _) in row.numbers.items()}
    row = dataclasses.replace(row, numbers=unknown, difference=unknown)
    point = (0.5, (0.7, None, None))
    compared = dataclasses.replace(
        compared,
        rows=[row, *compared.rows],
        sweeps={"precision": {"uniform": [point]}},
    )
    table = comparison.format_markdown(compared)
    assert "| One class | 0.600 | 2,000 | +0.600 |" in table
    assert "| 0.5 | 0.700 |" in table
    assert "One class,precision,0.6,,,0.6,,," in comparison.format_csv(compared)
    page = comparison.write_comparison(compared, tmp_path / "table.html").read_text()
    assert "None" not in page
    assert comparison._bars(compared, "score")[0]["width"] == 0


def test_bars_are_as_long_as_their_numbers(compared):
    scores = comparison._bars(compared, "score")
    assert [round(bar["end"], 2) for bar in scores] == [27.78, 41.67, 97.22]
    assert scores[0]["low"] == pytest.approx(100 * 1900 / 7200)
    assert scores[0]["width"] == pytest.approx(100 * 300 / 7200)
    # A precision of all above chance begins there.
    assert comparison._bars(compared, "precision")[0]["end"] == pytest.approx(
        100 * (0.6 - 0.5) / (0.91 - 0.5)
    )
    low = create_row("Bad", "Hand-made", 0.4, -500.0)
    compared = dataclasses.replace(compared, rows=[low, *compared.rows])
    assert comparison._bars(compared, "precision")[0]["end"] == pytest.approx(
        100 * 0.4 / 0.91
    )
    assert comparison._bars(compared, "score")[0]["low"] == 0.0


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_shows_all_and_fits(compared, tmp_path, width):
    path = comparison.write_comparison(compared, tmp_path / "new" / "table.html")
    page = path.read_text(encoding="utf-8")
    assert "A table &lt;of&gt; systems" in page
    assert "HOG &amp; more" in page
    assert re.search(r"\+0\.300<small>\[\+0\.280, \+0\.310\]</small>", page)
    assert len(re.findall(r'class="best"', page)) == 2
    # Those of the score begin at 0, as one expects.
    assert re.findall(r"Bars begin at (\S+)\.<", page) == ["0.500"]
    found, console = open_in_browser(page, tmp_path, width=width)
    assert not found["violations"] + found["errors"] + found["requests"]
    assert not found["repeated"]
    assert found["overflow"] <= 0
    assert not console
    assert found["cut"] == []
    assert found["scrolled"] == found["hints"]


def test_a_page_without_a_sweep_has_no_place_for_it(compared, tmp_path):
    compared = dataclasses.replace(compared, sweeps={})
    page = comparison.write_comparison(compared, tmp_path / "table.html").read_text()
    assert 'id="sweep"' not in page
