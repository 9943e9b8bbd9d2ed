"""Charts of the page, as SVG in the page's text colour."""

from collections.abc import Callable
import html
import io
import re

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Legible on white and on black.
COLORS = ("#3a82c9", "#d97e22", "#2c9c74", "#b35fc4", "#c9503f", "#8a8a2b")
# Placeholder of the text colour, replaced by the page's.
_INK = "#010203"


def draw(
    fill: Callable[[Axes], None],
    *,
    label: str,
    prefix: str,
    size: tuple[float, float] = (4.6, 2.5),
) -> str:
    """Returns a chart as an `<svg>` that may stand beside others.

    Args:
      fill: Function that draws into the axes.
      label: Description of the chart for screen readers.
      prefix: Prefix of the ids in the SVG, unique on a page.
      size: Width and height in inches.
    """
    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": label,
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
    with rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        figure.patch.set_alpha(0.0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0.0)
        axes.set_axisbelow(True)
        axes.grid(axis="y", color="#888888", alpha=0.25, linewidth=0.7)
        fill(axes)
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    return _for_page(buffer.getvalue(), label, prefix)


def _for_page(svg: str, label: str, prefix: str) -> str:
    """Returns an SVG file as an element of a page that may hold several."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = svg.replace(_INK, "currentColor")
    for reference in 'id="', "url(#", 'href="#':
        svg = svg.replace(reference, reference + prefix)
    label = html.escape(label, quote=True)
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
