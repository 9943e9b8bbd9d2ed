"""Makes the runs of an experiment, each a process of its own in a folder of its own.

Convention: what is done is not done again, and runs that were made with other settings
are refused, not taken for these.
"""

import ast
from collections.abc import Mapping, Sequence
from concurrent import futures
import dataclasses
import importlib.util
import json
import pathlib
import subprocess
import sys
from typing import Any

import ml_collections
import tqdm

from deeprank_jax import config as config_lib
from deeprank_jax import writers


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
        if made.exists() and json.loads(made.read_text()) != values:
            raise SystemExit(
                f"error: {workdir} was made with the settings in {made}, now they are "
                f"{' '.join(values)}; give another --workdir, or remove it."
            )
        if not results.exists():
            workdir.mkdir(parents=True, exist_ok=True)
            writers.write_json(made, values)
            command = [sys.executable, "-m", "deeprank_jax.main"]
            command += [f"--workdir={workdir}", f"--config={self.config}"]
            command += [f"--config.{value}" for value in values]
            with (workdir / "log.txt").open("a") as log:
                done = subprocess.run(command, stdout=log, stderr=log, check=False)
            if done.returncode:
                raise SystemExit(f"error: a run failed; see {workdir / 'log.txt'}.")
        else:
            self._check_same(workdir, values)
        return json.loads(results.read_text())

    def _check_same(self, workdir: pathlib.Path, values: Sequence[str]) -> None:
        """Checks that a run had the config that the file gives now.

        Raises:
          SystemExit: it had another.
        """
        wanted = changed(load_plan(self.config, ()).get_config(), values)
        told = json.loads((workdir / "config.json").read_text())
        wanted, found = map(
            config_lib.flatten_config, (wanted, ml_collections.ConfigDict(told))
        )
        # What came to be told since then was as it is by default.
        for key in found.keys() & wanted.keys():
            if found[key] != wanted[key]:
                raise SystemExit(
                    f"error: {workdir} was made with {key}={found[key]}, "
                    f"{self.config} now has {wanted[key]}; give another --workdir, or "
                    "remove it."
                )


def value(results: Any, metric: str, *, split: str = "test") -> float:
    """Returns a metric, as `"evaluator/name"`, of a run's model."""
    evaluator, name = metric.split("/")
    return results[split][evaluator][name]["model"]


def changed(
    config: ml_collections.ConfigDict, values: Sequence[str]
) -> ml_collections.ConfigDict:
    """Returns a config with NAME=VALUE changed, as flags would.

    Raises:
      SystemExit: there is no such name, or the value is of another type.
    """
    config = config.copy_and_resolve_references().lock()
    for text in values:
        name, _, literal = text.partition("=")
        try:
            parsed = ast.literal_eval(literal)
        except (ValueError, SyntaxError):
            parsed = literal
        try:
            config.update_from_flattened_dict({name: parsed})
        except KeyError as error:
            # The message lists the whole config; its last line is the suggestion.
            *_, hint = str(error.args[0]).splitlines()
            hint = hint if hint.startswith("Did you mean") else "see configs/base.py."
            raise SystemExit(
                f"error: --set={text}: there is no {name}. {hint}"
            ) from error
        except (TypeError, ValueError) as error:
            raise SystemExit(f"error: --set={text}: {error}") from error
    return config


def load_plan(path: pathlib.Path, names: Sequence[str]) -> Any:
    """Returns a config file as a module.

    Args:
      path: the file.
      names: what it must define beside `get_config`.

    Raises:
      SystemExit: there is no such file, or it does not define one of them.
    """
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise SystemExit(f"error: {path} is no config file; give its path.")
    plan = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plan)
    for name in names:
        if not hasattr(plan, name):
            raise SystemExit(f"error: {path} has no {name}, and so nothing to compare.")
    return plan
