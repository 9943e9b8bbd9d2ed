"""Encoded thumbnails, and a panel of queries as PNG.

A grade of relevance is shown by the colour and by the line style of a frame, so that
it can be read without seeing colours.
"""

import base64
from collections.abc import Callable, Sequence
import os
from typing import Any

import cv2
from matplotlib import patches
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
import numpy as np

from deeprank_jax.report.query_panel import Grades, Row

Thumbnails = Callable[[np.ndarray], np.ndarray]

# Colour and line style, most relevant first; the last is for relevance 0.
_FRAMES: tuple[tuple[str, Any], ...] = (
    ("#0b7a56", "solid"),
    ("#2a78c2", (0, (6, 1.5))),
    ("#8e5bb5", (0, (4, 1.5, 1, 1.5))),
    ("#d08700", (0, (3, 2))),
    ("#c2412d", (0, (1, 1.6))),
)
_SLOTS = {1: (0,), 2: (0, 1), 3: (0, 1, 3), 4: (0, 1, 2, 3)}


def frame_slot(grade: int, grades: Grades) -> int:
    """Returns the number of a grade's frame: 0 for the most relevant, 4 for none."""
    best = len(grades.edges)
    return _SLOTS[best][best - grade] if grade else len(_FRAMES) - 1


def pips(grade: int, grades: Grades) -> str:
    """Returns a grade as filled and empty circles, e.g. `"●●○"`."""
    return "●" * grade + "○" * (len(grades.edges) - grade)


def encode_image(image: np.ndarray, *, quality: int = 88) -> str:
    """Returns an image `[H, W, 3 or 4]` uint8 RGB(A) as a WebP `data:` address."""
    code = cv2.COLOR_RGB2BGR if image.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
    ok, encoded = cv2.imencode(
        ".webp", cv2.cvtColor(image, code), [cv2.IMWRITE_WEBP_QUALITY, quality]
    )
    if not ok:
        raise ValueError(f"OpenCV could not encode an image of shape {image.shape}.")
    return "data:image/webp;base64," + base64.b64encode(encoded.tobytes()).decode()


def resize_thumbnails(thumbnails: np.ndarray, size: int) -> np.ndarray:
    """Returns `[n, size, size, 3]` uint8, shrunk by area or enlarged smoothly."""
    if thumbnails.shape[1:3] == (size, size):
        return thumbnails
    shrinks = min(thumbnails.shape[1:3]) >= size
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LANCZOS4
    resized = [cv2.resize(t, (size, size), interpolation=how) for t in thumbnails]
    return np.stack(resized) if resized else np.zeros((0, size, size, 3), np.uint8)


def write_panel(
    path: str | os.PathLike[str],
    rows: Sequence[Row],
    grades: Grades,
    thumbnails: Thumbnails,
    *,
    width: int = 1200,
) -> None:
    """Writes queries and their nearest images, framed by relevance, as a PNG.

    Args:
      path: Path of the file.
      rows: Queries, all with the same number of neighbours.
      grades: Grades of the rows' relevances.
      thumbnails: Function from record indices `[n]` to uint8 `[n, S, S, 3]`.
      width: Width of the picture in pixels.
    """
    gap, top, bottom = 14, 44, 52
    num_columns = 1 + max((len(row.neighbors) for row in rows), default=0)
    # Two more gaps set the query apart.
    size = (width - (num_columns + 3) * gap) // num_columns
    height = top + len(rows) * (size + gap) + bottom
    figure = Figure(figsize=(width / 100, height / 100), dpi=100, facecolor="white")
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.axis("off")
    left_edge = lambda column: gap + column * (size + gap) + (2 * gap if column else 0)
    axes.text(left_edge(0), top - 14, "query", fontsize=13, color="#333")
    axes.text(left_edge(1), top - 14, "nearest images", fontsize=13, color="#333")
    for line, row in enumerate(rows):
        y = top + line * (size + gap)
        indices = np.array([row.query, *row.neighbors])
        images = resize_thumbnails(thumbnails(indices), size - 16)
        slots = [frame_slot(int(g), grades) for g in grades.of(row.relevance)]
        for column, (image, slot) in enumerate(
            zip(images, [None, *slots], strict=True)
        ):
            _draw_framed(axes, image, left_edge(column), y, size, slot)
    _draw_legend(axes, grades, left_edge(1), height - bottom + 26)
    FigureCanvasAgg(figure).print_png(os.fspath(path), metadata={"Software": None})


def _draw_framed(axes, image, x, y, size, slot) -> None:
    """Draws one image at whole pixels; a query has a thin grey frame."""
    pad = (size - len(image)) / 2
    axes.imshow(
        image,
        extent=(x + pad, x + size - pad, y + size - pad, y + pad),
        interpolation="none",
        aspect="auto",
    )
    color, line = ("#bbbbbb", "solid") if slot is None else _FRAMES[slot]
    axes.add_patch(
        patches.FancyBboxPatch(
            (x + 3, y + 3),
            size - 6,
            size - 6,
            boxstyle="round,pad=0,rounding_size=9",
            fill=False,
            edgecolor=color,
            linestyle=line,
            linewidth=1.0 if slot is None else 3.0,
        )
    )


def _draw_legend(axes, grades: Grades, x: float, y: float) -> None:
    for grade in range(len(grades.names))[::-1]:
        color, line = _FRAMES[frame_slot(grade, grades)]
        axes.plot([x, x + 44], [y, y], color=color, linestyle=line, linewidth=3.0)
        axes.text(x + 54, y + 5, grades.names[grade], fontsize=12, color="#333")
        x += 90 + 8.5 * len(grades.names[grade])
