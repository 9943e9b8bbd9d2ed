"""Heat maps of matrices in reports."""

import re

from helpers.report_inputs import create_inputs
import numpy as np

from deeprank_jax.evaluation.matrices import Matrix
from deeprank_jax.report import matrix_chart, write_report

MINUS = "\N{MINUS SIGN}"


def create_matrix(num=3):
    values = np.linspace(-0.5, 1.0, num * num).reshape(num, num)
    values[0, 1] = np.nan
    return Matrix(
        title="Mean cosine by <kind>",
        note="Of all pairs.",
        names=tuple(f"kind {i}" for i in range(num)),
        values=values,
    )


def texts(svg):
    return re.findall(r"<text [^>]*>([^<]*)</text>", svg)


def test_numbers_stand_in_the_cells_but_not_where_there_is_none():
    written = texts(matrix_chart.draw_matrix(create_matrix(), prefix="m-"))
    numbers = [f"{MINUS}.50", f"{MINUS}.12", ".06", ".25", ".44", ".62", ".81", "1.00"]
    assert [x for x in numbers if x not in written] == []
    assert not any("nan" in x for x in written)
    assert written.count("kind 2") == 2


def test_a_large_matrix_has_colours_alone():
    written = texts(matrix_chart.draw_matrix(create_matrix(13), prefix="m-"))
    assert written.count("kind 12") == 2
    assert f"{MINUS}.50" not in written


def test_numbers_of_dark_cells_are_white_and_of_light_ones_black():
    svg = matrix_chart.draw_matrix(create_matrix(), prefix="m-")
    fills = {text: style for style, text in re.findall(
        r'<text style="([^"]*)"[^>]*>([^<]*)</text>', svg)}  # fmt: skip
    assert "#ffffff" in fills[f"{MINUS}.50"]
    assert "#ffffff" not in fills["1.00"]


def test_the_page_shows_each_matrix_or_no_section(tmp_path):
    few = dict(ok=np.arange(60) < 4, metrics=[], drawn=None)
    matrices = [create_matrix(), create_matrix(13)]
    path = write_report(create_inputs(matrices=matrices, **few), tmp_path / "a")
    page = path.read_text("utf-8")
    assert page.count("<figcaption>Mean cosine by &lt;kind&gt;<small>Of all pai") == 2
    assert page.count('aria-label="Mean cosine by &lt;kind&gt;"') == 2
    assert 'href="#matrices"' in page
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    path = write_report(create_inputs(**few), tmp_path / "b")
    assert "matrices" not in path.read_text("utf-8")


def test_one_value_everywhere_is_drawn():
    matrix = create_matrix(2)
    matrix.values[:] = 0.25
    assert texts(matrix_chart.draw_matrix(matrix, prefix="m-")).count(".25") == 4
