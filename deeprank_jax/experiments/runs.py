"""Training runs of an experiment, each a process of its own in its own folder.

A finished run is reused. A folder that holds a run with other settings is refused.
"""

from collections.abc import Mapping, Sequence
from concurrent import futures
import dataclasses
import pathlib
import sys
from typing import Any

import ml_collections

from deeprank_jax import checksums, files
from deeprank_jax import config as config_lib
from deeprank_jax.distributed import children
from deeprank_jax.errors import DataError, UserError
from deeprank_jax.experiments import plans
from deeprank_jax.files import locks
from deeprank_jax.progress import Bar
from deeprank_jax.training import checkpoints
from deeprank_jax.training.workdir import read_json

# `{split: {evaluator: {metric: {system: value}}}}`, the content of results.json.
Results = Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]
# Changes of a config: values by dotted key.
Settings = Mapping[str, object]

_REMEDY = "remove {} and run the same command again, which trains the run again."


class RunError(UserError):
    """A training run failed; the message names its log."""


@dataclasses.dataclass(frozen=True)
class Runs:
    """The training runs of one config file.

    Attributes:
      config: Path of the config file.
      workdir: Folder that holds a folder per run.
      common: `KEY=VALUE` overrides of every run's config.
      jobs: Number of runs trained at the same time.
    """

    config: pathlib.Path
    workdir: pathlib.Path
    common: Sequence[str] = ()
    jobs: int = 1

    def locked(self) -> locks.Lock:
        """Keeps other experiments out of the folder until the lock is released.

        Raises:
          LockedError: Another process trains runs in it.
          WriteError: The folder cannot be written.
        """
        return locks.inside(files.create_folder(self.workdir), "--workdir")

    def train_all(
        self, settings: Mapping[str, Settings], *, description: str
    ) -> dict[str, Results]:
        """Trains the runs that are not finished, and returns the results of all.

        Args:
          settings: Config changes of each run, by the run's name.
          description: Text of the progress bar.
        """
        with futures.ThreadPoolExecutor(self.jobs) as pool:
            results = pool.map(self.train, settings, settings.values())
            bar = Bar(results, total=len(settings), desc=description, unit="run")
            try:
                return dict(zip(settings, bar, strict=True))
            except KeyboardInterrupt:
                pool.shutdown(wait=False, cancel_futures=True)
                children.end_all()
                raise

    def train(self, name: str, settings: Settings) -> Results:
        """Trains a run unless it is finished, and returns its results.

        Args:
          name: Name of the run and of its folder.
          settings: Config changes of the run.

        Raises:
          RunError: The run fails.
          DataError: The folder holds a run with other settings.
        """
        workdir = self.workdir / name
        results_path, settings_path = (
            workdir / "results.json",
            workdir / "settings.json",
        )
        values = [f"{key}={value}" for key, value in settings.items()]
        values += self.common
        config = plans.override(plans.load_plan(self.config, ()).get_config(), values)
        identity = {"values": values, "start": _digest(config.init_from)}
        if settings_path.exists():
            _check_settings(settings_path, identity)
        if results_path.exists() and (workdir / "intervals.json").exists():
            self._check_same_config(workdir, config)
            return _read_results(results_path)
        workdir.mkdir(parents=True, exist_ok=True)
        files.write_json(settings_path, checksums.seal_json(identity))
        command = [sys.executable, "-m", "deeprank_jax.main"]
        command += [f"--workdir={workdir}", f"--config={self.config}"]
        command += [f"--config.{value}" for value in values]
        with (workdir / "log.txt").open("a") as log:
            process = children.run(command, log=log)
        if process.returncode:
            raise RunError(f"the run {name} failed; see {workdir / 'log.txt'}.")
        return _read_results(results_path)

    def interval(self, name: str, metric: str) -> tuple[float, float] | None:
        """Returns the interval `(low, high)` of a metric on test; None without one.

        Args:
          name: Name of a finished run.
          metric: Metric as `"evaluator/name"`.
        """
        intervals = _read_results(self.workdir / name / "intervals.json")
        evaluator, metric_name = metric.split("/")
        ends = intervals["test"][evaluator][metric_name].get("model")
        return None if ends is None else (ends["low"], ends["high"])

    def _check_same_config(
        self, workdir: pathlib.Path, config: ml_collections.ConfigDict
    ) -> None:
        """Checks a finished run's config against the current one.

        Raises:
          DataError: They differ.
        """
        saved = config_lib.flatten_config(config_lib.read_run_config(workdir))
        current = config_lib.flatten_config(config)
        for values in (saved, current):  # A run keeps the absolute path.
            values["data.dir"] = files.absolute(values["data.dir"])
        # Keys added since that run have their default in it; those that are None were
        # chosen by the run.
        for key in saved.keys() & current.keys():
            if key == "init_from" and current["first_stage"]:
                continue  # A folder within that of the run.
            if current[key] is not None and saved[key] != current[key]:
                raise DataError(
                    f"{workdir} was trained with {key}={saved[key]}, {self.config} now "
                    f"has {current[key]}; give another --workdir, or remove it."
                )


def _digest(start: str) -> str | None:
    """Returns a digest of the weights that a run starts from; None without any.

    Args:
      start: Value of `config.init_from`.
    """
    if not start:
        return None
    try:
        arrays = checkpoints.read_network(start).arrays
    except checkpoints.CheckpointError:
        return None  # The run itself reports it.
    return checkpoints.digest_arrays(arrays)


def _read_results(path: pathlib.Path) -> dict[str, Any]:
    """Returns the content of a finished run's file.

    Raises:
      DataError: It is missing or has changed since it was written.
    """
    try:
        return read_json(path)
    except FileNotFoundError as error:
        reason = f"{path} is missing"
        raise DataError(f"{reason}; {_REMEDY.format(path.parent)}") from error
    except DataError as error:
        reason = f"{path} has changed since it was written"
        raise DataError(f"{reason}; {_REMEDY.format(path.parent)}") from error


def _check_settings(path: pathlib.Path, identity: Mapping[str, object]) -> None:
    """Checks the saved settings of a run against the current ones.

    Args:
      path: Path of the run's settings.json.
      identity: Current content of that file.

    Raises:
      DataError: They differ.
    """
    try:
        saved = files.read_json(path)
        if isinstance(saved, list):  # Written before the start was recorded.
            saved = {"values": saved, "start": None}
        saved = checksums.unseal_json(saved)
        if saved.keys() != identity.keys():
            raise ValueError(f"it has the entries {', '.join(saved)}")
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} is damaged ({error}); {_REMEDY.format(path.parent)}"
        ) from error
    values = identity["values"]
    assert isinstance(values, list)
    if saved["values"] != values:
        raise DataError(
            f"{path.parent} was trained with the settings in {path}, now they are "
            f"{' '.join(values)}; give another --workdir, or remove it."
        )
    # The start may have been missing, so that the run failed.
    if saved["start"] is not None and saved["start"] != identity["start"]:
        raise DataError(
            f"{path.parent} started from a run that was trained again since then; "
            "remove it, so that it is trained again, too."
        )


def value(results: Results, metric: str, *, split: str = "test") -> float:
    """Returns the model's value of a metric, given as `"evaluator/name"`."""
    evaluator, name = metric.split("/")
    return results[split][evaluator][name]["model"]
