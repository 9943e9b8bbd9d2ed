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
      shares: `[K, S]` shares of all positives and, if there are any, of all negatives.
      zeros: `[S]` shares with relevance 0.
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


def count_relevances(relevance: np.ndarray, num_positives: int = 1) -> Bins:
    """Counts relevances by size, the least and the largest in the middle of a bin.

    Args:
      relevance: `[T, P + N]` float, relevances of positives and of negatives; `T` at
        least 1.
      num_positives: Number of positives `P`, the first columns.
    """
    # float32 and float64 relevances of the same level are one value.
    values = np.array([float(f"{value:.5g}") for value in relevance.flat])
    values = values.reshape(relevance.shape)
    columns = (values[:, :num_positives], values[:, num_positives:])
    sides = [side.ravel() for side in columns if side.size]
    zeros = np.array([(side == 0).mean() for side in sides])
    above = values[values > 0]
    if not len(above):
        return Bins(False, np.zeros(0), np.zeros((0, len(sides))), zeros)
    low, high = above.min(), above.max()
    log, cut = bool(high >= _SPAN * low), bool(high > _LONGEST * low)
    if log:
        low = max(low, high / _LONGEST)
    place = lambda x: np.log10(np.maximum(x, low)) if log else x
    centers = np.linspace(place(low), place(high), _NUM_BINS if high > low else 1)
    shares = np.zeros((len(centers), len(sides)))
    for column, side in enumerate(sides):
        bin_ = np.abs(place(side)[:, None] - centers).argmin(axis=-1)
        counts = np.bincount(bin_[side > 0], minlength=len(centers))
        shares[:, column] = counts / len(side)
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
        for side in range(shares.shape[1]):
            axes.bar(
                places + (side - 0.5) * 0.45 * width,
                shares[:, side],
                width=0.45 * width,
                color=chart.COLORS[side],
                label=("positives", "negatives")[side],
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
