"""Runs side by side: the config keys in which they differ, and their metrics."""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import math
import pathlib

from deeprank_jax import config as config_lib
from deeprank_jax.errors import DataError

# `{split: {evaluator: {metric: {system: ...}}}}`
_Tree = Mapping[str, Mapping[str, Mapping[str, Mapping[str, object]]]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run.

    Attributes:
      name: Name of the run: that of its folder, or its path if names repeat.
      workdir: Folder of the run.
      config: Values of its config by dotted key.
      results: Content of its results.json.
      intervals: Content of its intervals.json; empty if it has none.
    """

    name: str
    workdir: pathlib.Path
    config: Mapping[str, object]
    results: _Tree
    intervals: _Tree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """A run's value of a metric.

    Attributes:
      value: Value of the run's model; None if the run does not measure it.
      low: Lower end of its 95 % interval; None without an interval.
      high: Upper end.
      is_best: True for the largest of values that differ.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    is_best: bool = False

    def __str__(self) -> str:
        """Returns value and interval; the best has a star."""
        if self.value is None:
            return "-"
        is_count = self.value > 1 and float(self.value).is_integer()
        digits = 0 if is_count or abs(self.value) >= 100 else 3
        text = f"{self.value:,.{digits}f}"
        if self.low is not None and self.high is not None:
            text += f" [{self.low:,.{digits}f}, {self.high:,.{digits}f}]"
        return f"{text} *" if self.is_best else text


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunComparison:
    """Runs side by side.

    Attributes:
      names: Names of the runs.
      config: Values of each config key in which runs differ, one per run; None where a
        run has no such key.
      metrics: Cells of each metric by `(split, "evaluator/metric")`, one per run.
    """

    names: Sequence[str]
    config: Mapping[str, Sequence[object]]
    metrics: Mapping[tuple[str, str], Sequence[Cell]]


def compare_runs(workdirs: Sequence[pathlib.Path]) -> RunComparison:
    """Compares finished runs, the test split first.

    Args:
      workdirs: Folders of the runs, at least one.

    Raises:
      ConfigError: A folder is not a run.
      DataError: A run has not finished, or its files cannot be read.
    """
    runs = read_runs(workdirs)
    keys = dict.fromkeys(key for run in runs for key in run.config)
    config = {key: [run.config.get(key) for run in runs] for key in keys}
    splits = dict.fromkeys(split for run in runs for split in run.results)
    metrics = {}
    for split in sorted(splits, key=lambda split: split != "test"):
        names = dict.fromkeys(
            f"{evaluator}/{metric}"
            for run in runs
            for evaluator, values in run.results.get(split, {}).items()
            for metric in values
        )
        for name in names:
            metrics[split, name] = _mark_best(
                name, [_read_cell(run, split, name) for run in runs]
            )
    return RunComparison(
        names=[run.name for run in runs],
        config={
            key: values
            for key, values in config.items()
            if any(value != values[0] for value in values)
        },
        metrics=metrics,
    )


def read_runs(workdirs: Sequence[pathlib.Path]) -> list[Run]:
    """Reads the files of finished runs.

    Raises:
      ConfigError: A folder is not a run.
      DataError: A run has not finished, or its files cannot be read.
    """
    names = [path.resolve().name for path in workdirs]
    if len(set(names)) < len(names):
        names = [str(path) for path in workdirs]
    return [
        Run(
            name=name,
            workdir=workdir,
            config=config_lib.flatten_config(config_lib.read_run_config(workdir)),
            results=_read_json(workdir / "results.json"),
            intervals=_read_json(workdir / "intervals.json", is_optional=True),
        )
        for name, workdir in zip(names, workdirs, strict=True)
    ]


def _read_json(path: pathlib.Path, *, is_optional: bool = False) -> _Tree:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if is_optional:
            return {}
        raise DataError(
            f"{path.parent} has no {path.name}, so it has not finished; continue it "
            "by the command that started it."
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); copy the run again.") from (
            error
        )
    if not isinstance(content, dict):
        raise DataError(f"{path} does not hold the results of a run; copy it again.")
    return content


def _read_cell(run: Run, split: str, name: str) -> Cell:
    evaluator, metric = name.split("/", 1)
    value = _lookup(run.results, split, evaluator, metric, "model")
    if not isinstance(value, int | float):
        return Cell(value=None)
    ends = _lookup(run.intervals, split, evaluator, metric, "model")
    if not isinstance(ends, Mapping):
        return Cell(value=value)
    return Cell(value=value, low=ends["low"], high=ends["high"])


def _lookup(tree: object, *keys: str) -> object:
    for key in keys:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def _mark_best(name: str, cells: list[Cell]) -> list[Cell]:
    values = [x.value for x in cells if x.value is not None and math.isfinite(x.value)]
    is_count = name.split("/", 1)[1].startswith("num_")
    if is_count or len(set(values)) < 2:
        return cells
    return [
        dataclasses.replace(cell, is_best=cell.value == max(values)) for cell in cells
    ]
