"""Heat map of a matrix, as SVG."""

from collections.abc import Sequence
from typing import Any

import markupsafe
from matplotlib import colormaps
from matplotlib.axes import Axes
import numpy as np

from deeprank_jax.evaluation.matrices import Matrix
from deeprank_jax.report import chart

# From dark to light, told apart without seeing red or green.
_COLORS = colormaps["cividis"]
_MOST_NUMBERS = 12
# Brightness of a cell's colour below which its number is white.
_DARK = 0.5


def matrix_values(matrices: Sequence[Matrix]) -> list[dict[str, Any]]:
    """Returns what the page shows of each matrix: `title`, `note` and `svg`.

    Args:
      matrices: Matrices with a number at least each.
    """
    return [
        {
            "title": matrix.title,
            "note": matrix.note,
            "svg": markupsafe.Markup(draw_matrix(matrix, prefix=f"matrix{number}-")),
        }
        for number, matrix in enumerate(matrices)
    ]


def draw_matrix(matrix: Matrix, *, prefix: str) -> str:
    """Returns a matrix as an `<svg>`, light cells for large numbers.

    Up to twelve rows have their numbers in the cells.

    Args:
      matrix: Matrix with a number at least.
      prefix: Prefix of the ids in the SVG, unique on a page.
    """
    values = matrix.values
    low, high = np.nanmin(values), np.nanmax(values)

    def fill(axes: Axes) -> None:
        axes.grid(False)
        mesh = axes.pcolormesh(
            np.ma.masked_invalid(values), cmap=_COLORS, vmin=low, vmax=high
        )
        places = np.arange(len(values)) + 0.5
        small = 9 if len(values) <= _MOST_NUMBERS else 6
        axes.set_xticks(places, matrix.names, fontsize=small, rotation=90)
        axes.set_yticks(places, matrix.names, fontsize=small)
        if max(map(len, matrix.names)) <= 2:
            axes.tick_params(axis="x", labelrotation=0)
        axes.tick_params(length=0)
        axes.set_aspect("equal")
        axes.invert_yaxis()
        for side in axes.spines.values():
            side.set_visible(False)
        axes.figure.colorbar(mesh, ax=axes, shrink=0.7)
        if len(values) <= _MOST_NUMBERS:
            _write_numbers(axes, values, low, high)

    return chart.draw(fill, label=matrix.title, prefix=prefix, size=(5.2, 4.5))


def _write_numbers(axes: Axes, values: np.ndarray, low: float, high: float) -> None:
    """Writes the numbers into the cells, in two decimals."""
    span = high - low or 1.0
    for (row, column), value in np.ndenumerate(values):
        if not np.isfinite(value):
            continue
        brightness = np.mean(_COLORS((value - low) / span)[:3])
        text = f"{value:.2f}".replace("0.", ".", 1).replace("-", "\N{MINUS SIGN}")
        axes.text(
            column + 0.5,
            row + 0.5,
            text,
            ha="center",
            va="center",
            fontsize=7,
            color="white" if brightness < _DARK else "black",
        )
