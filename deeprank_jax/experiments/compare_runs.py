"""Runs side by side: the config keys in which they differ, and their metrics."""

from collections.abc import Mapping, Sequence
import dataclasses
import math
import pathlib

import numpy as np

from deeprank_jax import config as config_lib
from deeprank_jax import files
from deeprank_jax.data import create_records
from deeprank_jax.errors import DataError, UserError
from deeprank_jax.evaluation import QueryEvaluator, QueryScores, best_metric, bootstrap
from deeprank_jax.evaluation.split import create_context, create_evaluators
from deeprank_jax.relevance import attach
from deeprank_jax.training import workdir as workdir_lib
from deeprank_jax.training.experiment import create_run_relevance
from deeprank_jax.training.workdir import Workdir

# Value, lower and upper end.
_Ends = tuple[float, float, float]
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
      above_first: Difference to the first run's value with its paired interval,
        `(value, low, high)`; None if it is not known.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    is_best: bool = False
    above_first: tuple[float, float, float] | None = None

    @property
    def digits(self) -> int:
        """Returns the number of decimals to show: none for counts and large values."""
        value = self.value or 0.0
        is_count = abs(value) > 1 and float(value).is_integer()
        return 0 if is_count or abs(value) >= 100 else 3

    def __str__(self) -> str:
        """Returns value and interval; the best has a star."""
        if self.value is None:
            return "-"
        digits = self.digits
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
      note: Sentence on the differences between the runs' values.
    """

    names: Sequence[str]
    config: Mapping[str, Sequence[object]]
    metrics: Mapping[tuple[str, str], Sequence[Cell]]
    note: str


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
    differences, note = _pair(runs)
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
                name,
                [
                    _read_cell(run, split, name, differences.get(run.name, {}))
                    for run in runs
                ],
            )
    return RunComparison(
        names=[run.name for run in runs],
        config={
            key: values
            for key, values in config.items()
            if any(value != values[0] for value in values)
        },
        metrics=metrics,
        note=note,
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
            config=_read_config(workdir),
            results=_read_json(Workdir(workdir).results),
            intervals=_read_json(Workdir(workdir).intervals, is_optional=True),
        )
        for name, workdir in zip(names, workdirs, strict=True)
    ]


def _read_config(workdir: pathlib.Path) -> dict[str, object]:
    """Returns the values of a run's config by dotted key."""
    values = config_lib.flatten_config(config_lib.read_run_config(workdir))
    if values["first_stage"]:
        values["init_from"] = ""  # A folder within that of the run.
    return values


def _read_json(path: pathlib.Path, *, is_optional: bool = False) -> _Tree:
    try:
        return workdir_lib.read_json(path)
    except FileNotFoundError as error:
        if is_optional:
            return {}
        raise DataError(
            f"{path.parent} has no {path.name}, so it has not finished; continue it "
            "by the command that started it."
        ) from error


def _read_cell(
    run: Run, split: str, name: str, differences: Mapping[str, _Ends]
) -> Cell:
    evaluator, metric = name.split("/", 1)
    value = _lookup(run.results, split, evaluator, metric, "model")
    if not isinstance(value, int | float):
        return Cell(value=None)
    ends = _lookup(run.intervals, split, evaluator, metric, "model")
    low, high = (
        (ends["low"], ends["high"]) if isinstance(ends, Mapping) else (None,) * 2
    )
    difference = differences.get(name) if split == "test" else None
    return Cell(value=value, low=low, high=high, above_first=difference)


def _lookup(tree: object, *keys: str) -> object:
    for key in keys:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def _mark_best(name: str, cells: list[Cell]) -> list[Cell]:
    values = [x.value for x in cells if x.value is not None and math.isfinite(x.value)]
    is_ranked = not _is_count(name) and best_metric.is_ranked(name.split("/")[0])
    if not is_ranked or len(set(values)) < 2:
        return cells
    return [
        dataclasses.replace(cell, is_best=cell.value == max(values)) for cell in cells
    ]


def _is_count(name: str) -> bool:
    """Returns whether `"evaluator/metric"` only counts queries or triplets."""
    return name.split("/", 1)[1].startswith("num_")


def _pair(runs: Sequence[Run]) -> tuple[dict[str, dict[str, _Ends]], str]:
    """Compares each run with the first on the same draws of test queries.

    Args:
      runs: Finished runs; the others are compared with the first.

    Returns:
      Differences by run and metric, and a sentence on them. There are none if the runs
      were not measured on the same queries and triplets, or their data are gone.
    """
    first, *others = runs
    if not others:
        return {}, "One run has nothing to be compared with."
    triplets = [_read_bytes(Workdir(x.workdir).triplets / "test.csv") for x in runs]
    if triplets[0] is None or any(text != triplets[0] for text in triplets):
        return {}, "Values alone are compared: the evaluation triplets differ."
    try:
        scores, groups = _measure(runs)
    except (UserError, OSError, KeyError) as error:
        return {}, f"Values alone are compared: {error}"
    differences: dict[str, dict[str, _Ends]] = {}
    for name, metrics in bootstrap.compare(scores, groups=groups).items():
        differences[name] = {
            # Reported is the first less the other; 0 stays 0, not -0.
            metric: (
                0.0 - x.difference.value,
                0.0 - x.difference.high,
                0.0 - x.difference.low,
            )
            for metric, x in metrics.items()
            if x.difference is not None
            and x.difference.is_known
            and not _is_count(metric)
        }
    if len(np.unique(groups)) < bootstrap.LEAST_GROUPS:
        return {}, (
            "Values alone are compared: the queries of test are of fewer than "
            f"{bootstrap.LEAST_GROUPS} classes, too few for an interval."
        )
    return differences, (
        f"Differences to {first.name} have paired 95 % intervals over classes of test "
        "queries."
    )


def _measure(
    runs: Sequence[Run],
) -> tuple[dict[str, dict[str, QueryScores]], np.ndarray]:
    """Returns the per-query scores of each run on test, and the class of each query."""
    config = config_lib.read_run_config(runs[0].workdir)
    relevance = create_run_relevance(config)
    records = attach(relevance, create_records(config.data))["test"]
    context = create_context(config, "test", records, relevance, runs[0].workdir)
    evaluators = create_evaluators(config.evaluation.evaluators.to_dict(), context)
    embedded = []
    for run in runs:
        path = Workdir(run.workdir).test_embeddings
        if not path.exists():
            raise DataError(f"{path} is missing.")
        embedded.append(workdir_lib.read_embeddings(path))
    if any(len(ok) != len(records) for _, ok in embedded):
        raise DataError("the test splits have different sizes.")
    common = np.logical_and.reduce([ok for _, ok in embedded])
    scores = {
        run.name: {
            f"{name}/{metric}": x
            for name, evaluator in evaluators.items()
            if isinstance(evaluator, QueryEvaluator)
            for metric, x in evaluator.measure(embeddings, common).items()
        }
        for run, (embeddings, _) in zip(runs, embedded, strict=True)
    }
    return scores, records.labels[:, -1]


def _read_bytes(path: pathlib.Path) -> bytes | None:
    try:
        return files.read_bytes(path, files.MAX_TEXT)
    except OSError:
        return None
