"""Summaries of a run for its user: what is trained, and how good the result is."""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np

from deeprank_jax.config import read_run_config
from deeprank_jax.report import metric_tables
from deeprank_jax.training.experiment import Experiment
from deeprank_jax.training.network import trunk_names
from deeprank_jax.training.next_commands import next_commands
from deeprank_jax.training.workdir import Workdir, read_json


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
    first, *others = trunk_names(config)
    network = " beside ".join([f"{first}{_describe_weights(config)}", *others])
    return [
        f"Data: {', '.join(counts)}.",
        f"Network: {network}, "
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


def describe_end(workdir: str | pathlib.Path) -> str:
    """Returns the end of a finished run: its metrics, a verdict and the next commands.

    Args:
      workdir: Folder of the run, from whose files all is read.

    Raises:
      DataError: The results have changed since they were written.
    """
    files = Workdir(pathlib.Path(workdir))
    results = read_json(files.results)
    config = read_run_config(files.path)
    lines = [
        *_format_table(results),
        "",
        *_in_ascii(files.verdict.read_text("utf-8")).splitlines(),
        "",
        f"Results: {files.results}",
        f"Report:  {files.report / 'index.html'}",
        "",
        "Next:",
        *(f"  {command}" for command in next_commands(config, workdir).values()),
    ]
    return "\n".join(lines)


def _format_table(results: Mapping[str, Any]) -> list[str]:
    """Returns the headlines of the report in aligned columns, a row for each metric."""
    split, rows = (
        metric_tables.main_split(results),
        metric_tables.headline_rows(results),
    )
    systems = [
        (system, title)
        for system, (title, _) in metric_tables.name_systems(results).items()
        if any(system in values for *_, values in rows)
    ]
    retrieval = results.get(split, {}).get("retrieval", {})
    num_queries = retrieval.get("num_queries", {}).get("model")
    queries = "" if num_queries is None else f", {num_queries:,.0f} queries"
    cells = [[f"{split}{queries}", *(title for _, title in systems)]]
    for evaluator, metric, values in rows:
        texts = [
            _in_ascii(metric_tables.format_metric(metric, values.get(system)))
            for system, _ in systems
        ]
        cells.append([metric_tables.full_name(evaluator, metric), *texts])
    return [_align(row, cells) for row in cells]


def _align(row: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    first, *others = zip(row, widths, strict=True)
    return "  ".join([first[0].ljust(first[1]), *(x.rjust(n) for x, n in others)])


def _in_ascii(text: str) -> str:
    """Returns signs and blanks of numbers in characters that every terminal has."""
    return text.translate(
        {ord("\N{MINUS SIGN}"): "-", ord("\N{EN DASH}"): "-", 0xA0: " "}
    )
