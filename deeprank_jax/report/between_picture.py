"""Picture of a label between two others, in the plane of their mean directions."""

import os
import pathlib

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
import numpy as np

from deeprank_jax import files
from deeprank_jax.data.records import Records
from deeprank_jax.inference.between import LabelPlace
from deeprank_jax.inference.images import decode
from deeprank_jax.report import chart
from deeprank_jax.report.contact_sheet import thumbnail

_MAX_DOTS = 400
# Largest angle from upright that the circle is drawn to, and least angle between two
# images at its rim, in radians.
_VISIBLE, _APART = 1.35, 0.42
_INK, _QUIET = "#222222", "#888888"


def write_picture(
    path: str | os.PathLike[str], place: LabelPlace, records: Records
) -> None:
    """Draws the images of a label and of the two labels of its first arc.

    The plane holds the directions of both ends. A point is an embedding of length 1,
    projected to the plane: the farther inside the circle, the farther off the plane.

    Args:
      path: Path of the picture, .png or .svg.
      place: Place of the label, with an arc at least.
      records: Records of the images.
    """
    arc = place.arcs[0]
    numbers = (arc.ends[0], place.number, arc.ends[1])
    plane = _plane(place.directions[arc.ends[0]], place.directions[arc.ends[1]])
    figure = Figure(figsize=(7.2, 4.9), layout="constrained", dpi=110)
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_aspect("equal")
    _draw_circle(axes)
    directions = place.directions[list(numbers)] @ plane
    turns = np.arctan2(*directions.T)
    for number, direction, turn, color in zip(
        numbers, directions, _spread(turns), chart.COLORS, strict=False
    ):
        points = place.embeddings[place.labels == number] @ plane
        _draw_label(axes, place, records, number, direction, points, color, float(turn))
    first, second = (place.names[end] for end in arc.ends)
    axes.set_title(
        f"{place.label} between {first} and {second}\n"
        f"{arc.end_angles[0]:.0f}° from {first} (cosine {arc.end_cosines[0]:.2f}), "
        f"{arc.end_angles[1]:.0f}° from {second} ({arc.end_cosines[1]:.2f}), "
        f"which are {arc.arc_angle:.0f}° apart ({arc.arc_cosine:.2f}); "
        f"{arc.off_arc:.0f}° off the arc",
        fontsize=10,
        color=_INK,
        parse_math=False,
    )
    path = pathlib.Path(path)
    files.create_folder(path.parent)
    with files.replacing(path) as file:
        if path.suffix == ".svg":
            FigureCanvasSVG(figure).print_svg(file, metadata={"Date": None})
        else:
            FigureCanvasAgg(figure).print_png(file)


def _plane(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns the axes `[D, 2]` of the plane of two directions.

    The middle of the two points up, the first lies on the left.
    """
    up = (first + second) / np.linalg.norm(first + second)
    right = second - first
    right -= (right @ up) * up
    return np.stack([right / np.linalg.norm(right), up], axis=1)


def _draw_circle(axes: Axes) -> None:
    """Draws the part of the circle on which embeddings of the plane lie."""
    turns = np.linspace(-_VISIBLE, _VISIBLE, 181)
    axes.plot(np.sin(turns), np.cos(turns), color=_QUIET, linewidth=0.8)
    axes.plot([0], [0], "+", color=_QUIET)
    axes.set_xlim(-1.55, 1.55)
    axes.set_ylim(-0.06, 1.72)


def _spread(turns: np.ndarray) -> np.ndarray:
    """Returns angles from upright for three images that do not overlap, in radians.

    The middle one keeps its angle.

    Args:
      turns: `[3]` angles of the directions, ascending.
    """
    first, middle, second = turns
    return np.array([min(first, middle - _APART), middle, max(second, middle + _APART)])


def _draw_label(
    axes: Axes,
    place: LabelPlace,
    records: Records,
    number: int,
    direction: np.ndarray,
    points: np.ndarray,
    color: str,
    turn: float,
) -> None:
    """Draws the images of a label as points, and its direction with an image.

    Args:
      axes: Axes to draw into.
      place: Place of the label.
      records: Records of the images.
      number: Number of the label that is drawn.
      direction: `[2]` its direction in the plane.
      points: `[n, 2]` its embeddings in the plane.
      color: Colour of the label.
      turn: Angle from upright at which the image is drawn, in radians.
    """
    axes.plot(*points[:_MAX_DOTS].T, "o", color=color, markersize=4, alpha=0.55)
    axes.plot(*zip((0, 0), direction, strict=True), color=color, linewidth=1.8)
    outside = np.array([np.sin(turn), np.cos(turn)])
    leader = direction, 1.1 * outside
    axes.plot(*zip(*leader, strict=True), ":", color=color, linewidth=1)
    # The image that is nearest to the mean stands for the label.
    rows = np.flatnonzero(place.labels == number)
    typical = rows[np.argmax(place.embeddings[rows] @ place.directions[number])]
    index = int(place.indices[typical])
    picture = AnnotationBbox(
        OffsetImage(thumbnail(decode(records.read(index), "")), zoom=0.6),
        tuple(1.32 * outside),
        bboxprops={"edgecolor": color, "linewidth": 2},
        pad=0.15,
    )
    axes.add_artist(picture)
    axes.annotate(
        place.names[number],
        tuple(1.32 * outside + (0, 0.26)),
        ha="center",
        color=color,
        parse_math=False,
    )
