"""Summaries of a run for its user: what is trained, and how good the result is."""

from collections.abc import Mapping, Sequence
import pathlib
import shlex
from typing import Any

import jax
import ml_collections
import numpy as np

from deeprank_jax.config import read_run_config
from deeprank_jax.report.metric_tables import HEADLINES, format_metric, main_split
from deeprank_jax.report.number_format import with_sign
from deeprank_jax.training.experiment import Experiment
from deeprank_jax.training.workdir import Workdir, read_json

_BETTER_BY = "model_better_by"


def describe_start(experiment: Experiment) -> list[str]:
    """Returns sentences on the data, the network and the devices of a run.

    Args:
      experiment: Parts of the run.
    """
    config = experiment.config
    counts = [
        f"{name} {len(split):,}"
        f"{' images' if i == 0 else ''} of {len(np.unique(split.labels[:, -1])):,}"
        f"{' classes' if i == 0 else ''}"
        for i, (name, split) in enumerate(experiment.records.items())
    ]
    leaves = jax.tree.leaves(experiment.state.params)
    side = config.data.image_size
    return [
        f"Data: {', '.join(counts)}.",
        f"Network: {config.model.trunk.name}{_describe_weights(config)}, "
        f"{sum(x.size for x in leaves):,} parameters, images of {side} x {side} "
        "pixels.",
        f"Devices: {_describe_devices()}.",
    ]


def _describe_weights(config: ml_collections.ConfigDict) -> str:
    """Returns the weights that training begins with, "" for random ones."""
    if config.init_from:
        return f" from {config.init_from}"
    if config.model.weights == "package":
        return " with the weights of its package"
    return (
        f" with the weights of {config.model.weights}" if config.model.weights else ""
    )


def _describe_devices() -> str:
    """Returns number and kind of the devices, and of processes if they are several."""
    kinds = [
        "CPU" if device.platform == "cpu" else device.device_kind
        for device in jax.devices()
    ]
    text = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    if jax.process_count() > 1:
        text += f" of {jax.process_count()} processes"
    return text


def headline_rows(results: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Returns the metrics at the top of the report by name, each of all systems.

    Args:
      results: `{split: {evaluator: {metric: {system: value}}}}`.
    """
    of_split = results[main_split(results)]
    return {
        f"{evaluator}/{name}": dict(values)
        for evaluator, name in HEADLINES
        if (values := of_split.get(evaluator, {}).get(name))
    }


def describe_end(workdir: str | pathlib.Path) -> str:
    """Returns the end of a finished run: its metrics, a verdict and the next commands.

    Args:
      workdir: Folder of the run, from whose files all is read.

    Raises:
      DataError: The results have changed since they were written.
    """
    files = Workdir(pathlib.Path(workdir))
    results, intervals = read_json(files.results), read_json(files.intervals)
    config = read_run_config(files.path)
    before = "before training" if _has_start(config) else "untrained"
    split = main_split(results)
    lines = [
        *_format_table(split, results[split], headline_rows(results), before),
        "",
        describe_verdict(results, intervals, config),
        "",
        f"Results: {files.results}",
        f"Report:  {files.report / 'index.html'}",
        "",
        "Next:",
        *(f"  {command}" for command in _next_commands(files.path, config)),
    ]
    return "\n".join(lines)


def describe_verdict(
    results: Mapping[str, Any],
    intervals: Mapping[str, Any],
    config: ml_collections.ConfigDict,
) -> str:
    """Returns a sentence that compares the model with the network before training.

    Args:
      results: `{split: {evaluator: {metric: {system: value}}}}`.
      intervals: Same keys, of which "untrained" has "model_better_by".
      config: Config of the run, whose metric for the choice of a checkpoint is used.
    """
    split, rows = main_split(results), headline_rows(results)
    metric = config.evaluation.best_metric
    metric = metric if metric in rows else next(iter(rows), "")
    if "untrained" not in rows.get(metric, {}):
        return "There is no metric to compare with the network before training."
    evaluator, name = metric.split("/", 1)
    before = "network before training" if _has_start(config) else "untrained network"
    values = rows[metric]
    of_metric = intervals.get(split, {}).get(evaluator, {}).get(name, {})
    ends = of_metric.get("untrained", {}).get(_BETTER_BY)
    if ends is None:
        difference = _format(name, values["model"] - values["untrained"], signed=True)
        return (
            f"Compared with the {before}: {metric} on {split} differs by {difference}, "
            "without an interval."
        )
    if ends[1] == ends[2] == 0:
        verdict, change = "As good as", "is the same"
    else:
        value, low, high = (_format(name, x, signed=True) for x in ends)
        change = f"differs by {value} [{low}, {high}] (95 % interval)"
        verdict = "Not surely better than"
        if ends[1] > 0:
            verdict = "Better than"
        elif ends[2] < 0:
            verdict = "Worse than"
    pixels = _describe_pixels(metric, values, of_metric)
    return f"{verdict} the {before}: {metric} on {split} {change}{pixels}."


def _describe_pixels(
    metric: str, values: Mapping[str, float], intervals: Mapping[str, Any]
) -> str:
    """Returns a warning if plain pixels are surely better than the model, else ""."""
    ends = intervals.get("pixels", {}).get(_BETTER_BY)
    if ends is None or ends[2] >= 0:
        return ""
    value = _format(metric.split("/", 1)[1], values["pixels"])
    return f"; plain pixels are better, with {value}"


def _format_table(
    split: str,
    results: Mapping[str, Any],
    rows: Mapping[str, Mapping[str, float]],
    before: str,
) -> list[str]:
    """Returns lines of aligned columns, a row for each metric."""
    titles = {"model": "model", "untrained": before, "pixels": "16x16 pixels"}
    num_queries = results.get("retrieval", {}).get("num_queries", {}).get("model")
    queries = "" if num_queries is None else f", {num_queries:,.0f} queries"
    cells = [[f"{split}{queries}", *titles.values()]]
    for metric, values in rows.items():
        name = metric.split("/", 1)[1]
        cells.append([metric, *(_format(name, values.get(x)) for x in titles)])
    return [_align(row, cells) for row in cells]


def _align(row: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    first, *others = zip(row, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(x.rjust(n) for x, n in others)])


def _format(name: str, value: float | None, *, signed: bool = False) -> str:
    """Returns a metric in characters that every terminal has."""
    text = format_metric(name, value)
    text = with_sign(text) if signed else text
    return text.replace("\N{MINUS SIGN}", "-").replace("\N{EN DASH}", "-")


def _has_start(config: ml_collections.ConfigDict) -> bool:
    """Returns whether training began with trained weights."""
    return bool(config.init_from or config.model.weights)


def _next_commands(
    workdir: pathlib.Path, config: ml_collections.ConfigDict
) -> list[str]:
    """Returns the commands that export the model and search with it."""
    name = workdir.absolute().name
    model, index, source = f"models/{name}", f"{name}.index", "photos"
    if config.data.source.name == "folder":
        source = config.data.dir
    elif "dataset" in config.data.source:
        source = f"tfds:{config.data.source.dataset}/test"
    elif config.data.source.name == "emoji":
        source = "tfds:emoji/test"
    commands = (
        ["deeprank", "export", f"--workdir={workdir}", f"--out={model}"],
        ["deeprank", "index", source, f"--model={model}", f"--out={index}"],
        ["deeprank", "search", "query.jpg", f"--index={index}", "--out=found.html"],
    )
    return list(map(shlex.join, commands))
