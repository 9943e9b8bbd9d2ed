"""The model's metrics beside those of its baselines."""

from collections.abc import Callable
from typing import Any

from absl import logging
import numpy as np

from deeprank_jax.descriptors.pixels import center_and_normalize, pixels
from deeprank_jax.evaluation import bootstrap
from deeprank_jax.evaluation.split import SplitEvaluation

# {evaluator: {metric: {system: value}}}
Results = dict[str, dict[str, dict[str, float]]]
# {evaluator: {metric: {system: {"low", "high" and maybe "model_better_by"}}}}
Intervals = dict[str, dict[str, dict[str, dict[str, Any]]]]


def compare_with_baselines(
    evaluation: SplitEvaluation,
    model: tuple[np.ndarray, np.ndarray],
    untrained_fn: Callable[[np.ndarray], np.ndarray],
    frozen_fn: Callable[[np.ndarray], np.ndarray] | None = None,
) -> tuple[Results, Intervals]:
    """Measures the model and its baselines.

    The systems are `"model"`, `"untrained"`, `"pixels"` and, if it is given,
    `"frozen"`.

    Args:
      evaluation: of one split.
      model: the trained model's embeddings, and which records could be read.
      untrained_fn: the network as it was before training.
      frozen_fn: the trunk alone, as it was before training; centred and normalised
        here, as the pixels are.

    Returns:
      The values of all metrics; and of all but counts, and of more than one class, the
      95 % intervals over classes of queries, with `model_better_by` of the other
      systems, `[value, low, high]` of the paired difference. All are measured on the
      records that every system has an embedding of.
    """
    name = evaluation.name
    embedded = {
        "model": model,
        "untrained": evaluation.embed(untrained_fn, f"{name}, untrained"),
    }
    for system, raw_fn in (("frozen", frozen_fn), ("pixels", pixels)):
        if raw_fn is not None:
            raw, ok = evaluation.embed(raw_fn, f"{name}, {system}")
            raw[ok] = center_and_normalize(raw[ok])
            embedded[system] = raw, ok
    common = np.logical_and.reduce([ok for _, ok in embedded.values()])
    for system, (_, ok) in embedded.items():
        if left_out := np.count_nonzero(ok & ~common):
            logging.warning(
                "%s: %d records that %s has an embedding of are left out, because "
                "another system has none.",
                *(name, left_out, system),
            )
    systems = {
        system: evaluation.scores(rows, common)
        for system, (rows, _) in embedded.items()
    }
    compared = bootstrap.compare(systems, groups=evaluation.groups)
    results: Results = {name: {} for name in evaluation.evaluators}
    intervals: Intervals = {name: {} for name in evaluation.evaluators}
    for key in systems["model"]:
        evaluator, metric = key.split("/", 1)
        of_all = {system: found[key] for system, found in compared.items()}
        results[evaluator][metric] = {s: x.own.value for s, x in of_all.items()}
        if not metric.startswith("num_"):
            known = {s: x for s, x in of_all.items() if x.own.is_known}
            intervals[evaluator][metric] = {s: _ends(x) for s, x in known.items()}
    return results, intervals


def _ends(compared: bootstrap.Compared) -> dict[str, Any]:
    own, less = compared.own, compared.difference
    ends: dict[str, Any] = {"low": own.low, "high": own.high}
    if less is not None:
        ends["model_better_by"] = [less.value, less.low, less.high]
    return ends
