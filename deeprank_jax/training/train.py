"""Training from Python: `deeprank_jax.train`."""

from collections.abc import Mapping
import dataclasses
import os
import pathlib

import ml_collections

from deeprank_jax.config import load_config
from deeprank_jax.errors import ConfigError
from deeprank_jax.progress import Progress
from deeprank_jax.training import loop
from deeprank_jax.training.workdir import Workdir, read_json


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """A finished run.

    Attributes:
      workdir: Folder of the run, as `deeprank export` takes it.
      report: Page of the report.
      results: Final metrics by split, evaluator and metric, for the model and each
        baseline, as `results.json` has them.
    """

    workdir: pathlib.Path
    report: pathlib.Path
    results: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]]

    def __repr__(self) -> str:
        """Returns the folder of the run."""
        return f"<TrainingResult {self.workdir}: report {self.report}>"


def train(
    config: str | os.PathLike[str] | ml_collections.ConfigDict,
    workdir: str | os.PathLike[str] | None = None,
    *,
    progress: Progress | None = None,
) -> TrainingResult:
    """Trains a model in this process, or continues where a run stopped.

    Args:
      config: Name of an installed config, e.g. `"emoji"`, path of a config file, or a
        config.
      workdir: Folder of the run; None for `runs/NAME`, after the name of the config.
      progress: Function that receives the progress, called as
        `progress(done, total, description)`; None for a bar.

    Raises:
      ConfigError: The config cannot be used, or it has no name and no workdir is given.
      DataError: The data cannot be used.
      CheckpointError: A checkpoint is damaged or belongs to another run.
      NonFiniteError: Training diverged.
    """
    argument = "config"
    if not isinstance(config, ml_collections.ConfigDict):
        name = os.fspath(config)
        argument = repr(name)
        workdir = workdir or pathlib.Path("runs", pathlib.Path(name).stem)
        config = load_config(name)
    elif workdir is None:
        raise ConfigError(
            "workdir must be set for a config without a name: give the folder of the "
            'run, e.g. "runs/mine".'
        )
    path = pathlib.Path(workdir).expanduser()
    command = f"deeprank_jax.train({argument}, {os.fspath(workdir)!r})"
    report = loop.train(config, path, progress=progress, command=command)
    results = read_json(Workdir(path).results)
    return TrainingResult(workdir=path, report=report, results=results)
