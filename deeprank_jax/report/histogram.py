"""Histogram of the relevance of drawn positives and negatives.

A relevance of 0 has a bar of its own, apart from the axis.
"""

import dataclasses

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
import numpy as np

from deeprank_jax.report import chart
from deeprank_jax.report.number_format import format_number

_NUM_BINS = 19
# Ratio of the largest to the least relevance from which the axis is logarithmic.
_SPAN = 100.0
# Relevances smaller than the largest by more than this factor are in the first bin.
_LONGEST = 1e9


@dataclasses.dataclass(frozen=True)
class Bins:
    """Shares of positives and negatives by relevance.

    Attributes:
      log: True if `centers` are logarithms to base 10.
      centers: `[K]` centers of the bins, ascending; none if all relevances are 0.
      shares: `[K, 2]` shares of all positives and of all negatives.
      zeros: `[2]` shares with relevance 0.
      cut: True if the first bin holds smaller relevances, too.
    """

    log: bool
    centers: np.ndarray
    shares: np.ndarray
    zeros: np.ndarray
    cut: bool = False

    @property
    def width(self) -> float:
        """Returns the width of a bin; 1 for less than two of them."""
        return float(np.diff(self.centers[:2])[0]) if len(self.centers) > 1 else 1.0


def count_relevances(relevance: np.ndarray) -> Bins:
    """Counts relevances by size, the least and the largest in the middle of a bin.

    Args:
      relevance: `[T, 2]` float, relevances of positives and of negatives; `T` at
        least 1.
    """
    # float32 and float64 relevances of the same level are one value.
    values = np.array([float(f"{value:.5g}") for value in relevance.flat])
    values = values.reshape(relevance.shape)
    zeros = (values == 0).mean(axis=0)
    above = values[values > 0]
    if not len(above):
        return Bins(False, np.zeros(0), np.zeros((0, 2)), zeros)
    low, high = above.min(), above.max()
    log, cut = bool(high >= _SPAN * low), bool(high > _LONGEST * low)
    if log:
        low = max(low, high / _LONGEST)
        place = np.log10(np.maximum(values, low))
        low, high = np.log10(low), np.log10(high)
    else:
        place = values
    centers = np.linspace(low, high, _NUM_BINS if high > low else 1)
    bin_ = np.abs(place[..., None] - centers).argmin(axis=-1)
    shares = np.stack(
        [
            np.bincount(b[v > 0], minlength=len(centers)) / len(v)
            for b, v in zip(bin_.T, values.T, strict=True)
        ],
        axis=1,
    )
    return Bins(log, centers, shares, zeros, cut)


def draw_histogram(bins: Bins) -> str:
    """Returns the histogram as SVG; positives stand on the left in each bin."""
    width = bins.width
    ticks, labels = _ticks(bins)
    # Apart from the others, since 0 is not on a logarithmic axis.
    zero = bins.centers[0] - 2.5 * width if len(bins.centers) else 0.0
    places = np.append(zero, bins.centers)
    shares = np.vstack([bins.zeros, bins.shares])

    def fill(axes: Axes) -> None:
        for side, name in enumerate(("positives", "negatives")):
            axes.bar(
                places + (side - 0.5) * 0.45 * width,
                shares[:, side],
                width=0.45 * width,
                color=chart.COLORS[side],
                label=name,
            )
        axes.set_xticks([zero, *ticks], ["0", *labels])
        # A single bar must not fill the page.
        least = 8 * width - np.ptp(places)
        margin = max(width, least / 2)
        axes.set_xlim(places.min() - margin, places.max() + margin)
        axes.set_xlabel("relevance to the anchor" + " (log scale)" * bins.log)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        axes.legend(frameon=False, fontsize=8)

    label = "Relevance of drawn positives and negatives to their anchors"
    return chart.draw(fill, label=label, prefix="histogram-")


def _ticks(bins: Bins) -> tuple[np.ndarray, list[str]]:
    """Returns places and labels of ticks, at round relevances above 0."""
    centers = bins.centers
    if len(centers) < 2:
        return centers, [format_number(center) for center in centers]
    low, high = centers[0], centers[-1]
    if not bins.log:
        ticks = np.asarray(MaxNLocator(5).tick_values(low, high))
        ticks = ticks[(ticks > 0) & (ticks >= low) & (ticks <= high)]
        return ticks, [format_number(tick) for tick in ticks]
    decades = np.arange(np.ceil(low - 1e-9), np.floor(high + 1e-9) + 1)
    decades = decades[:: -(-len(decades) // 5)]
    return decades, [format_number(10.0**decade) for decade in decades]
