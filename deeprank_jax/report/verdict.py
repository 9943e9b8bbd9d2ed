"""Sentence at the top of the page that compares the model with its baselines."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from deeprank_jax.evaluation.bootstrap import LEAST_GROUPS
from deeprank_jax.report import metric_tables


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A sentence, and a note on what it rests on; both are empty without results."""

    text: str = ""
    note: str = ""


def create_verdict(
    results: Mapping[str, Any],
    intervals: Mapping[str, Any],
    num_classes: Mapping[str, int],
    meanings: Mapping[str, str],
) -> Verdict:
    """Returns the verdict by the first headline of the main split that has intervals.

    Args:
      results: Values as in `ReportInputs`.
      intervals: Intervals as in `ReportInputs`.
      num_classes: Number of classes of queries by split.
      meanings: Meaning of each metric by "evaluator/metric".
    """
    split = metric_tables.main_split(results)
    if not split:
        return Verdict()
    num = num_classes.get(split, 0)
    for evaluator, metric in metric_tables.HEADLINES:
        differences = {
            system: ends["model_better_by"]
            for system, ends in intervals.get(split, {})
            .get(evaluator, {})
            .get(metric, {})
            .items()
            if "model_better_by" in ends
        }
        if differences:
            name = metric_tables.full_name(evaluator, metric)
            names = metric_tables.name_systems(results)
            # By a graded relevance images alone of their class are queries, too.
            classes = f"the {num:,} classes" if num >= LEAST_GROUPS else "classes"
            texts = {
                names.get(system, (system, system))[1]: difference
                for system, difference in differences.items()
            }
            return Verdict(
                _compare(metric, f"{name} on {split}", texts),
                _explain(name, meanings.get(f"{evaluator}/{metric}", ""))
                + f"Brackets are 95 % intervals over {classes} of queries; another "
                "training run would vary, too.",
            )
    if num < LEAST_GROUPS:
        counted = f"The {split} split has queries of {num} classes."
        if num < 2:
            number = ("no", "one")[num]
            counted = f"In the {split} split {number} class has several images."
        return Verdict(
            "No verdict: the numbers rest on too few classes.",
            f"{counted} With fewer than {LEAST_GROUPS}, an interval is too narrow to "
            "be believed, so none is shown.",
        )
    return Verdict("No verdict: no difference to a baseline has an interval.")


def _explain(name: str, meaning: str) -> str:
    """Returns the sentence on a metric, "" if its meaning is not known."""
    if not meaning:
        return ""
    return f"{name}: {meaning[:1].lower()}{meaning[1:]}".rstrip(".") + ". "


def _compare(metric: str, place: str, differences: Mapping[str, Any]) -> str:
    """Returns the sentence from `(value, low, high)` of each baseline, by its name.

    Args:
      metric: Name of the metric.
      place: Metric and split, as the sentence names them.
      differences: Difference of the model to each baseline.
    """
    better, worse, unsure, same = [], [], [], []
    for name, (value, low, high) in differences.items():
        text = metric_tables.format_difference(metric, (value, low, high))
        if low == high == 0:
            same.append(name)
        elif low > 0:
            better.append(f"{name} by {text}")
        elif high < 0:
            worse.append(f"{name} ({text})")
        else:
            unsure.append(f"{name} ({text})")
    parts = [
        f"{relation} {' and '.join(names)}"
        for relation, names in (
            ("better than", better),
            ("not surely better than", unsure),
            ("worse than", worse),
            ("the same as", same),
        )
        if names
    ]
    first, *others = parts
    sentence = "; ".join([f"{first} in {place}", *others])
    return f"{sentence[:1].upper()}{sentence[1:]}."
