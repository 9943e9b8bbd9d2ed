"""Metrics of the trained model beside those of its baselines."""

from collections.abc import Callable, Mapping
import dataclasses
from typing import NamedTuple

from absl import logging
import numpy as np

from deeprank_jax.descriptors.pixels import center_and_normalize, pixels
from deeprank_jax.distributed import processes
from deeprank_jax.evaluation import bootstrap
from deeprank_jax.evaluation.matrices import Matrix
from deeprank_jax.evaluation.rankings import Ranking
from deeprank_jax.evaluation.split import Changed, Measurement, SplitEvaluation
from deeprank_jax.progress import working

# {evaluator: {metric: {system: value}}}
Results = dict[str, dict[str, dict[str, float]]]
# {evaluator: {metric: {system: {"low", "high" and maybe "model_better_by"}}}}
Intervals = dict[str, dict[str, dict[str, dict[str, float | list[float]]]]]

EmbedFn = Callable[[np.ndarray], np.ndarray]
_NUM_NEIGHBORS = 8
# Queries below which a metric is given with a warning.
_FEW_QUERIES = 100
# Systems that are centred over the split, and scaled to length 1.
_CENTERED = ("frozen", "pixels")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SystemComparison:
    """Metrics of the model and its baselines on a split.

    Attributes:
      results: Values of all metrics, `{evaluator: {metric: {system: value}}}`.
      intervals: 95 % intervals over classes of queries, with "low" and "high" in place
        of a value; of the baselines also "model_better_by", `[value, low, high]` of the
        paired difference. Counts and metrics that are not per query have none, nor have
        splits with queries of few classes.
      ranking: Nearest neighbours by the model's embeddings; None without a retrieval
        evaluator.
      matrices: Tables by the model's embeddings that a report draws.
    """

    results: Results
    intervals: Intervals
    ranking: Ranking | None
    matrices: list[Matrix]


def compare_with_baselines(
    evaluation: SplitEvaluation,
    model: tuple[np.ndarray, np.ndarray],
    networks: Mapping[str, EmbedFn],
    model_fn: EmbedFn | None = None,
) -> SystemComparison:
    """Measures the model and its baselines on the records that all of them can embed.

    The systems are `"model"`, the networks that are given, and `"pixels"`.

    Args:
      evaluation: Evaluation of one split.
      model: Embeddings of the trained model, and `ok [N]` bool, the records with one.
      networks: Networks before training by system, as `"untrained"`; the embeddings of
        `"frozen"`, the trunk alone, are centred and normalised here, as the pixels are.
      model_fn: Function that gave the model's embeddings; None leaves out the metrics
        of changed images.
    """
    functions = {**networks, "pixels": pixels}
    embedded = _embed_systems(evaluation, model, functions)
    changed = {}
    if model_fn is not None:
        changed = _embed_changed(evaluation, {"model": model_fn, **functions}, embedded)
    common = np.logical_and.reduce([x.ok for x in embedded.values()])
    for system, of_system in embedded.items():
        if left_out := np.count_nonzero(of_system.ok & ~common):
            logging.warning(
                "%s: %d records that %s has an embedding of are left out, because "
                "another system has none.",
                *(evaluation.name, left_out, system),
            )
    with working(f"Measuring {evaluation.name}", shown=processes.is_first()):
        systems = {
            system: evaluation.measure_queries(
                x.rows,
                common,
                num_neighbors=_NUM_NEIGHBORS if system == "model" else 0,
                changed=changed.get(system),
            )
            for system, x in embedded.items()
        }
        results, intervals = _tabulate(evaluation, systems)
        matrices = evaluation.matrices(model[0], common)
    return SystemComparison(
        results=results,
        intervals=intervals,
        ranking=systems["model"].ranking,
        matrices=matrices,
    )


def count_query_classes(labels: np.ndarray) -> int:
    """Returns the number of classes whose images have another one to be found.

    Args:
      labels: `[N, L]` int, labels of a split, of which the last are the classes.
    """
    return int(np.count_nonzero(np.bincount(labels[:, -1]) > 1))


def describe_few_queries(results: Results, intervals: Intervals) -> str:
    """Returns a warning of metrics that rest on few queries, "" if there is none.

    Args:
      results: Values of all metrics of a split.
      intervals: Their intervals.
    """
    retrieval = results.get("retrieval", {})
    num_queries = retrieval.get("num_queries", {}).get("model", _FEW_QUERIES)
    if num_queries >= _FEW_QUERIES:
        return ""
    metric = next(name for name in retrieval if name.startswith("recall@"))
    text = f"{metric} {retrieval[metric]['model']:.3f}"
    if ends := intervals.get("retrieval", {}).get(metric, {}).get("model"):
        text += f", 95 % interval {ends['low']:.3f} to {ends['high']:.3f}"
    return f"the metrics rest on only {num_queries:.0f} queries ({text})"


class _Embedded(NamedTuple):
    """Embeddings of a system.

    Attributes:
      rows: `[N, D]` float32, embeddings by which images are compared.
      ok: `[N]` bool, records with one.
      mean: `[D]` float64, mean that was subtracted from them; None for none.
    """

    rows: np.ndarray
    ok: np.ndarray
    mean: np.ndarray | None = None


def _embed_systems(
    evaluation: SplitEvaluation,
    model: tuple[np.ndarray, np.ndarray],
    functions: Mapping[str, EmbedFn],
) -> dict[str, _Embedded]:
    """Returns the embeddings of each system, the model first."""
    embedded = {"model": _Embedded(*model)}
    for system, embed_fn in functions.items():
        rows, ok = evaluation.embed(embed_fn, f"{evaluation.name}, {system}")
        mean = None
        if system in _CENTERED:
            if ok.any():
                mean = rows[ok].mean(axis=0, dtype=np.float64)
            rows[ok] = center_and_normalize(rows[ok], mean)
        embedded[system] = _Embedded(rows, ok, mean)
    return embedded


def _embed_changed(
    evaluation: SplitEvaluation,
    functions: Mapping[str, EmbedFn],
    embedded: Mapping[str, _Embedded],
) -> dict[str, Changed]:
    """Returns each system's embeddings of the images that evaluators change.

    They are centred by the mean of the unchanged images, among which they are searched.
    """
    changed: dict[str, Changed] = {}
    for system, (_, _, mean) in embedded.items():
        embed_fn = functions[system]
        title = f"{evaluation.name}, {system}"
        of_system = evaluation.embed_changed(embed_fn, title)
        changed[system] = of_system
        for of_evaluator in of_system.values() if mean is not None else ():
            for rows, ok in of_evaluator.values():
                rows[ok] = center_and_normalize(rows[ok], mean)
    return changed


def _tabulate(
    evaluation: SplitEvaluation, systems: Mapping[str, Measurement]
) -> tuple[Results, Intervals]:
    """Returns values and intervals of all metrics, by evaluator."""
    comparison = bootstrap.compare(
        {system: x.scores for system, x in systems.items()}, groups=evaluation.groups
    )
    results: Results = {name: {} for name in evaluation.evaluators}
    intervals: Intervals = {name: {} for name in evaluation.evaluators}
    for key in systems["model"].scores:
        evaluator, metric = key.split("/", 1)
        of_systems = {system: metrics[key] for system, metrics in comparison.items()}
        results[evaluator][metric] = {
            s: x.interval.value for s, x in of_systems.items()
        }
        if not metric.startswith("num_"):
            intervals[evaluator][metric] = {
                s: _ends(x) for s, x in of_systems.items() if x.interval.is_known
            }
    for key in systems["model"].values:
        evaluator, metric = key.split("/", 1)
        values = {system: x.values[key] for system, x in systems.items()}
        results[evaluator][metric] = values
    return results, intervals


def _ends(compared: bootstrap.Compared) -> dict[str, float | list[float]]:
    ends: dict[str, float | list[float]] = {
        "low": compared.interval.low,
        "high": compared.interval.high,
    }
    if (less := compared.difference) is not None:
        ends["model_better_by"] = [less.value, less.low, less.high]
    return ends
