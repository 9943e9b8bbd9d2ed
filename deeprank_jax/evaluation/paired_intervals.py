"""How sure is a difference? Intervals of means over runs that were made in pairs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats


def paired_interval(
    a: Sequence[float], b: Sequence[float], *, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Returns the mean of `a - b` and the ends of its interval by Student's t.

    Args:
      a: `[n]` values of one arm, at least 2.
      b: `[n]` values of the other, made with the same seeds.
      confidence: of the interval, in (0, 1).

    Returns:
      The mean difference, the lower and the upper end.

    Raises:
      ValueError: the lengths differ, or there are fewer than two pairs.
    """
    if len(a) != len(b) or len(a) < 2:
        raise ValueError(
            f"An interval needs as many values of both arms, and at least two, got "
            f"{len(a)} and {len(b)}."
        )
    differences = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    mean = float(differences.mean())
    error = float(differences.std(ddof=1) / np.sqrt(len(differences)))
    reach = float(stats.t.ppf(0.5 + confidence / 2, len(differences) - 1)) * error
    return mean, mean - reach, mean + reach


def compare_arms(values: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Compares the first arm of an experiment with each other.

    Args:
      values: of each arm, `[n]`, in the same order of seeds.

    Returns:
      `seeds`, the values; `mean` of each arm; `difference`, for each `"first - other"`
      its `mean`, and `low` and `high`, the ends of its paired 95 % interval.

    Raises:
      ValueError: as `paired_interval`.
    """
    first, *others = values
    return {
        "seeds": {arm: list(column) for arm, column in values.items()},
        "mean": {arm: float(np.mean(column)) for arm, column in values.items()},
        "difference": {
            f"{first} - {other}": dict(
                zip(
                    ("mean", "low", "high"),
                    paired_interval(values[first], values[other]),
                    strict=True,
                )
            )
            for other in others
        },
    }


def format_comparison(compared: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns a Markdown table with a row for each metric of `compare_arms`."""
    arms, differences = (
        [*next(iter(compared.values()))[k]] for k in ("mean", "difference")
    )
    lines = [f"| | {' | '.join([*arms, *differences])} |"]
    lines.append("|---" * (1 + len(arms) + len(differences)) + "|")
    for metric, entry in compared.items():
        cells = [f"{entry['mean'][arm]:.4g}" for arm in arms]
        for name in differences:
            found = entry["difference"][name]
            cells.append("{mean:+.4g} [{low:+.4g}, {high:+.4g}]".format(**found))
        lines.append(f"| {metric} | {' | '.join(cells)} |")
    return "\n".join(lines)
