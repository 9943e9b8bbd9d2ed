"""Paired intervals of the mean difference between runs with the same seeds."""

from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np
import scipy


def paired_interval(
    a: Sequence[float], b: Sequence[float], *, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Returns the mean of `a - b` and the ends of its interval by Student's t.

    Args:
      a: `[n]` values of one arm, at least 2.
      b: `[n]` values of the other arm, with the same seeds.
      confidence: Confidence of the interval, in (0, 1).

    Returns:
      The mean difference, the lower and the upper end.

    Raises:
      ValueError: The lengths differ, or there are fewer than two pairs.
    """
    if len(a) != len(b) or len(a) < 2:
        raise ValueError(
            f"An interval needs as many values of both arms, and at least two, got "
            f"{len(a)} and {len(b)}."
        )
    differences = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    mean = float(differences.mean())
    error = float(differences.std(ddof=1) / np.sqrt(len(differences)))
    reach = float(scipy.stats.t.ppf(0.5 + confidence / 2, len(differences) - 1)) * error
    return mean, mean - reach, mean + reach


class ArmComparison(TypedDict):
    """Comparison of pairs of arms of an experiment.

    Attributes:
      seeds: Values of each arm, one per seed.
      mean: Mean of each arm.
      difference: Mean difference (`mean`) and the ends of its paired 95 % interval
        (`low`, `high`), by `"arm - other"`.
    """

    seeds: dict[str, list[float]]
    mean: dict[str, float]
    difference: dict[str, dict[str, float]]


def compare_arms(
    values: Mapping[str, Sequence[float]],
    pairs: Sequence[tuple[str, str]] | None = None,
) -> ArmComparison:
    """Compares arms of an experiment.

    Args:
      values: `[n]` values of each arm, in the same order of seeds.
      pairs: Names of the arms to compare; by default the first arm with each other.

    Raises:
      ValueError: See `paired_interval`.
    """
    if pairs is None:
        first, *others = values
        pairs = [(first, other) for other in others]
    return {
        "seeds": {arm: list(column) for arm, column in values.items()},
        "mean": {arm: float(np.mean(column)) for arm, column in values.items()},
        "difference": {
            f"{arm} - {other}": dict(
                zip(
                    ("mean", "low", "high"),
                    paired_interval(values[arm], values[other]),
                    strict=True,
                )
            )
            for arm, other in pairs
        },
    }


def format_comparison(metrics: Mapping[str, ArmComparison]) -> str:
    """Returns a Markdown table with a row for each metric."""
    first = next(iter(metrics.values()))
    arms, differences = [*first["mean"]], [*first["difference"]]
    lines = [f"| | {' | '.join([*arms, *differences])} |"]
    lines.append("|---" * (1 + len(arms) + len(differences)) + "|")
    for metric, entry in metrics.items():
        cells = [f"{entry['mean'][arm]:.4g}" for arm in arms]
        for name in differences:
            numbers = entry["difference"][name]
            cells.append("{mean:+.4g} [{low:+.4g}, {high:+.4g}]".format(**numbers))
        lines.append(f"| {metric} | {' | '.join(cells)} |")
    return "\n".join(lines)
