"""Metrics that a config measures, and the check of `config.evaluation.best_metric`."""

from collections.abc import Mapping
import difflib

from deeprank_jax.errors import ConfigError
from deeprank_jax.evaluation import CONTEXT, EVALUATORS


def describe_metrics(
    evaluators: Mapping[str, Mapping[str, object]],
) -> dict[str, str]:
    """Returns the meaning of each metric, by `"evaluator/metric"`.

    Args:
      evaluators: Options of each evaluator, `config.evaluation.evaluators`.

    Raises:
      ConfigError: An evaluator or one of its options does not exist.
    """
    described = {}
    for name, options in evaluators.items():
        EVALUATORS.check({"name": name, **options}, CONTEXT)
        kind = EVALUATORS[name]
        values = {**EVALUATORS.options(name, CONTEXT), **options}
        metrics = getattr(kind, "describe_metrics")(**values)  # noqa: B009
        prefix = getattr(kind, "prefix", None) or name
        described |= {f"{prefix}/{metric}": x for metric, x in metrics.items()}
    return described


def is_ranked(evaluator: str) -> bool:
    """Returns whether larger metrics of an evaluator are better.

    Args:
      evaluator: First part of the names of its metrics; True for an unknown one.
    """
    for name, kind in EVALUATORS.items():
        if (getattr(kind, "prefix", None) or name) == evaluator:
            return getattr(kind, "is_ranked", True)
    return True


def check_best_metric(name: str, metrics: Mapping[str, str]) -> None:
    """Checks that the metric by which checkpoints are chosen is measured.

    Args:
      name: Value of `config.evaluation.best_metric`.
      metrics: Meaning of each metric by name; counts, `num_...`, and those for which
        larger is not better are not offered.

    Raises:
      ConfigError: It is not measured; the message gives the names, nearest first.
    """
    names = [
        x
        for x in metrics
        if is_ranked(x.split("/")[0]) and not x.rsplit("/", 1)[-1].startswith("num_")
    ]
    if name not in names:
        ratio = lambda x: difflib.SequenceMatcher(None, name, x).ratio()
        nearest = sorted(names, key=ratio, reverse=True)
        raise ConfigError(
            f"config.evaluation.best_metric={name!r} is not measured; choose one of "
            f"{', '.join(nearest)}."
        )
