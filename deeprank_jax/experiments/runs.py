"""Makes the runs of an experiment, each a process of its own in a folder of its own.

Convention: what is done is not done again, and runs that were made with other settings
are refused, not taken for these.
"""

from collections.abc import Mapping, Sequence
from concurrent import futures
import dataclasses
import hashlib
import json
import pathlib
import subprocess
import sys
from typing import Any

import ml_collections
import numpy as np
import tqdm

from deeprank_jax import config as config_lib
from deeprank_jax import files
from deeprank_jax.experiments import plans
from deeprank_jax.training import checkpoints


@dataclasses.dataclass(frozen=True)
class Runs:
    """Where and how runs are made.

    Attributes:
      config: the config file.
      workdir: holds a folder for each run.
      common: NAME=VALUE of every run's config.
      jobs: runs at the same time.
    """

    config: pathlib.Path
    workdir: pathlib.Path
    common: Sequence[str] = ()
    jobs: int = 1

    def make_all(
        self, runs: Mapping[str, Mapping[str, Any]], *, description: str
    ) -> dict[str, Any]:
        """Returns the results of each run, made if they are not there yet.

        Args:
          runs: by name, what of the config is changed.
          description: of the progress bar.
        """
        with futures.ThreadPoolExecutor(self.jobs) as pool:
            done = pool.map(self.make, runs, runs.values())
            bar = tqdm.tqdm(done, total=len(runs), desc=description, unit="run")
            return dict(zip(runs, bar, strict=True))

    def make(self, name: str, settings: Mapping[str, Any]) -> Any:
        """Returns the results of a run, made if they are not there yet.

        Raises:
          SystemExit: the run fails, or its folder is of another.
        """
        workdir = self.workdir / name
        results, made = workdir / "results.json", workdir / "settings.json"
        values = [f"{key}={value}" for key, value in settings.items()]
        values += self.common
        config = plans.changed(plans.load_plan(self.config, ()).get_config(), values)
        wanted = {"values": values, "start": _digest(config.init_from)}
        if made.exists():
            _check_settings(made, wanted)
        if results.exists() and (workdir / "intervals.json").exists():
            self._check_same(workdir, config)
            return json.loads(results.read_text())
        workdir.mkdir(parents=True, exist_ok=True)
        files.write_json(made, wanted)
        command = [sys.executable, "-m", "deeprank_jax.main"]
        command += [f"--workdir={workdir}", f"--config={self.config}"]
        command += [f"--config.{value}" for value in values]
        with (workdir / "log.txt").open("a") as log:
            done = subprocess.run(command, stdout=log, stderr=log, check=False)
        if done.returncode:
            raise SystemExit(f"error: a run failed; see {workdir / 'log.txt'}.")
        return json.loads(results.read_text())

    def interval(self, name: str, metric: str) -> tuple[float, float] | None:
        """Returns the ends of a metric's interval on test, None if it has none.

        Args:
          name: of a run that is made.
          metric: as `"evaluator/name"`.
        """
        found = json.loads((self.workdir / name / "intervals.json").read_text())
        evaluator, own = metric.split("/")
        ends = found["test"][evaluator][own].get("model")
        return None if ends is None else (ends["low"], ends["high"])

    def _check_same(
        self, workdir: pathlib.Path, config: ml_collections.ConfigDict
    ) -> None:
        """Checks that a run had the config that the file gives now.

        Raises:
          SystemExit: it had another.
        """
        told = json.loads((workdir / "config.json").read_text())
        wanted, found = map(
            config_lib.flatten_config, (config, ml_collections.ConfigDict(told))
        )
        # What came to be told since then was as it is by default.
        for key in found.keys() & wanted.keys():
            if found[key] != wanted[key]:
                raise SystemExit(
                    f"error: {workdir} was made with {key}={found[key]}, "
                    f"{self.config} now has {wanted[key]}; give another --workdir, or "
                    "remove it."
                )


def _digest(start: str) -> str | None:
    """Returns what changes when the run that another starts from is made anew.

    Args:
      start: `config.init_from`.
    """
    if not start:
        return None
    try:
        arrays = checkpoints.read_network(start).arrays
    except checkpoints.CheckpointError:
        return None  # Of which the run itself will tell.
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(name.encode() + np.asarray(array).tobytes())
    return digest.hexdigest()


def _check_settings(made: pathlib.Path, wanted: Mapping[str, Any]) -> None:
    """Checks what a run was made with.

    Raises:
      SystemExit: it was something else.
    """
    told = json.loads(made.read_text())
    if isinstance(told, list):  # As of before the start was told.
        told = {"values": told, "start": None}
    if told["values"] != wanted["values"]:
        raise SystemExit(
            f"error: {made.parent} was made with the settings in {made}, now they are "
            f"{' '.join(wanted['values'])}; give another --workdir, or remove it."
        )
    # It may not have been there yet, so that the run failed.
    if told["start"] is not None and told["start"] != wanted["start"]:
        raise SystemExit(
            f"error: {made.parent} started from a run that was made anew since then; "
            "remove it, so that it is made anew, too."
        )


def value(results: Any, metric: str, *, split: str = "test") -> float:
    """Returns a metric, as `"evaluator/name"`, of a run's model."""
    evaluator, name = metric.split("/")
    return results[split][evaluator][name]["model"]
