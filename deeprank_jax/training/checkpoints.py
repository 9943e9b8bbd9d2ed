"""Checkpoints of a run; the only module that uses Orbax.

A checkpoint holds the train state as a flat mapping from path to array, and as JSON the
state of the run: the sampler's state and the config. The last two checkpoints are kept,
and the best by a validation metric.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
import contextlib
import dataclasses
import hashlib
import math
import pathlib
import time
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from deeprank_jax.distributed import devices, processes
from deeprank_jax.errors import CheckpointError
from deeprank_jax.training.save_errors import describe_cause, save_error
from deeprank_jax.training.step import TrainState
from deeprank_jax.training.step_folders import StepFolders
from deeprank_jax.training.workdir import Workdir

managers = ocp.checkpoint_managers
# Metric that holds the step of a checkpoint.
_STEP = "step"
# Tries to read a checkpoint of a run that is being trained.
_NUM_TRIES = 5
# Time between looks at a save in the background.
_POLL_SECONDS = 0.02


class Checkpoints:
    """Checkpoints of one run, saved and sealed by checksums in the background."""

    def __init__(self, directory: str | pathlib.Path, *, best_metric: str):
        """Opens the directory, creating it if it is missing, and mends it.

        Args:
          directory: Folder of the checkpoints, with one folder per step.
          best_metric: Validation metric that selects the best one; larger is better.

        Raises:
          CheckpointError: A damaged checkpoint cannot be mended or set aside.
        """
        self.directory = pathlib.Path(directory).absolute()
        self._folders = StepFolders(self.directory)
        self._sealing: futures.Future[None] | None = None
        self._sealer = futures.ThreadPoolExecutor(1, "seal checkpoints")
        with processes.first_alone():
            if processes.is_first():
                self._mend()
        # Of equally good checkpoints the earliest, which Orbax does not tell `best_fn`.
        quality: Callable[[Any], Any] = lambda metrics: _quality(metrics, best_metric)
        keep_best = managers.BestN(
            get_metric_fn=quality,
            n=1,
            keep_checkpoints_without_metrics=False,
        )
        options = ocp.CheckpointManagerOptions(
            preservation_policy=managers.AnyPreservationPolicy(
                [managers.LatestN(n=2), keep_best]
            ),
            save_decision_policy=managers.FixedIntervalPolicy(1),
            best_fn=quality,
            cleanup_tmp_directories=True,
        )
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=options,
            item_handlers=_handlers(),
        )
        if processes.is_first():
            self._seal_later(None)

    def latest_step(self) -> int | None:
        """Returns the step of the newest checkpoint, None if there is none."""
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """Returns the step of the best checkpoint, None if none was evaluated."""
        self.wait()
        return self._manager.best_step()

    def metrics(self, step: int | None) -> Mapping[str, float] | None:
        """Returns the metrics of a step, None if it was not evaluated or saved."""
        if step is None or step not in self._manager.all_steps():
            return None
        return self._manager.metrics(step)

    def save(
        self,
        step: int,
        state: TrainState,
        run_state: Mapping[str, object],
        metrics: Mapping[str, float] | None = None,
    ) -> None:
        """Starts saving and returns once `state` may be donated.

        A step that is saved already is kept, unless it had no metrics and has them now.

        Raises:
          CheckpointError: This save, or the one before it, failed.
        """
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
            self._wait_for_seal()
            if step in self._manager.all_steps():
                if metrics is None or self.metrics(step):
                    return
                self._manager.delete(step)
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(_arrays_to_save(state)),
                    run=ocp.args.JsonSave(dict(run_state)),
                ),
                metrics=None if metrics is None else {**metrics, _STEP: step},
            )
            if processes.is_first():
                self._seal_later(step)
        except Exception as error:
            raise save_error(self.directory, error) from error

    def wait(self) -> None:
        """Waits until pending checkpoints are on disk.

        Raises:
          CheckpointError: They could not be written.
        """
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
            self._wait_for_seal()
        except Exception as error:
            raise save_error(self.directory, error) from error

    def restore(
        self, template: TrainState, step: int
    ) -> tuple[TrainState, dict[str, Any]]:
        """Reads a checkpoint into the structure and onto the devices of `template`.

        Args:
          template: Train state of the same model and optimizer.
          step: Step of the checkpoint.

        Returns:
          The state and the `run_state` it was saved with.

        Raises:
          CheckpointError: The checkpoint is damaged, or holds another model or
            optimizer.
        """
        arrays = _flatten(devices.to_global(template))
        self._check_intact(step)
        try:
            self._check_same(step, arrays)
            restored = self._read(step, arrays)
        except CheckpointError:
            raise
        # The kind of damage decides the type of the error.
        except Exception as error:
            raise CheckpointError(
                f"{self.directory / str(step)} cannot be read "
                f"({describe_cause(error)}); delete that folder and run again, to "
                "continue from the checkpoint before it or from the start."
            ) from error
        leaves = [restored.state[name] for name in arrays]
        structure = jax.tree.structure(template)
        state = jax.tree.unflatten(structure, devices.to_local(leaves))
        return state, restored.run

    def _read(self, step: int, arrays: Mapping[str, jax.Array]) -> Any:
        abstract = {
            name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
            for name, x in arrays.items()
        }
        return self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(abstract), run=ocp.args.JsonRestore()
            ),
        )

    def close(self) -> None:
        """Waits for pending checkpoints, then releases the directory."""
        try:
            self.wait()
        finally:
            self._sealer.shutdown()
            self._manager.close()

    def _mend(self) -> None:
        try:
            self._folders.mend()
        except OSError as error:
            raise CheckpointError(
                f"{self.directory}: a checkpoint could not be checked or mended "
                f"({describe_cause(error)}); see that its disk can be written to and "
                "has room."
            ) from error

    def _seal_later(self, step: int | None) -> None:
        """Starts sealing a step that is being saved, and copying the best one.

        The sealed steps before it are still there if this is interrupted.
        """
        self._sealing = self._sealer.submit(self._seal, step)

    def _seal(self, step: int | None) -> None:
        while self._manager.is_saving_in_progress():
            time.sleep(_POLL_SECONDS)
        # If it could not be saved, that error is told.
        if step is not None and (self.directory / str(step)).exists():
            self._folders.seal(step)
        self._folders.copy_best(self._manager.best_step())

    def _wait_for_seal(self) -> None:
        sealing, self._sealing = self._sealing, None
        if sealing is not None:
            sealing.result()

    def _check_intact(self, step: int) -> None:
        """Checks the files of a step, in the first process for all.

        Raises:
          CheckpointError: One has changed since it was saved.
        """
        reason: CheckpointError | OSError | None = None
        try:
            self.wait()
            if processes.is_first():
                self._folders.check(step)
        except (CheckpointError, OSError) as error:
            reason = error
        if not processes.all_agree(reason is None):
            where = self.directory / str(step)
            raise reason or CheckpointError(f"{where} is damaged; see process 0.")

    def _check_same(self, step: int, arrays: Mapping[str, jax.Array]) -> None:
        saved = {
            name: tuple(entry.shape)
            for name, entry in self._manager.item_metadata(step).state.items()
        }
        expected = {name: tuple(x.shape) for name, x in arrays.items()}
        if saved == expected:
            return
        name = min(
            name
            for name in saved.keys() | expected.keys()
            if saved.get(name) != expected.get(name)
        )
        verdict = "holds another model or optimizer"
        if name.startswith("memory/"):
            verdict = "holds another memory"
        raise CheckpointError(
            f"{self.directory / str(step)} {verdict}: {name} is "
            f"{saved.get(name, 'missing')} in the checkpoint and "
            f"{expected.get(name, 'missing')} in this config. Give another --workdir, "
            "or the config and images the checkpoint was made with."
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Saved:
    """The network of a checkpoint.

    Attributes:
      where: Folder of the step.
      arrays: Arrays by path, e.g. `params/trunk/convs/0/kernel/value`.
      config: Config of the run, by dotted key.
    """

    where: pathlib.Path
    arrays: dict[str, np.ndarray]
    config: dict[str, Any]


def read_network(path: str | pathlib.Path) -> Saved:
    """Reads a network without its structure, also while the run is being trained.

    Args:
      path: Workdir of a run, its folder of checkpoints, or one step of these. Without a
        step it is the best by the run's own metric, else the last.

    Raises:
      CheckpointError: No checkpoint is there, or it is damaged.
    """
    path = pathlib.Path(path).expanduser().absolute()
    for _ in range(_NUM_TRIES - 1):
        before = _list_folders(path)
        try:
            return _read_chosen(path)
        except (CheckpointError, OSError, ValueError):
            # Unless training has removed what was being read.
            if _list_folders(path) == before:
                raise
    return _read_chosen(path)


def _list_folders(path: pathlib.Path) -> set[pathlib.Path]:
    """Returns the folders of a run's checkpoints and copies."""
    folders = (path, *path.parents[:2])  # The path may be that of a step.
    return {x for folder in folders for x in folder.glob("checkpoints*/*")}


def _read_chosen(path: pathlib.Path) -> Saved:
    """Reads the network of the chosen step, see `read_network`."""
    is_run = Workdir(path).checkpoints.is_dir()
    step = int(path.name) if path.name.isdigit() and not is_run else None
    directory = path if step is None else path.parent
    directory = Workdir(path).checkpoints if is_run else directory
    steps = [p.name for p in directory.glob("[0-9]*") if p.name.isdigit()]
    if not steps or (step is not None and str(step) not in steps):
        raise CheckpointError(
            f"{path}: no checkpoint is there; give the workdir of a run that has saved "
            "one, or one step of its checkpoints."
        )
    folders = StepFolders(directory)
    if step is None:
        step = folders.copied_step()
    if step is None:
        step = _best_step(folders, sorted(map(int, steps)))
    where = folders.intact_directory(step) / str(step)
    with _readable(where):
        return _read_network(where)


@contextlib.contextmanager
def _readable(where: pathlib.Path) -> Iterator[None]:
    """Turns an error in the body into one that names the step it reads.

    Raises:
      CheckpointError: The body failed.
    """
    try:
        yield
    # The kind of damage decides the type of the error.
    except Exception as error:
        raise CheckpointError(
            f"{where} is damaged ({describe_cause(error)}); give another step or run."
        ) from error


def _read_network(where: pathlib.Path) -> Saved:
    # Not by a manager, which reads the metrics of all steps.
    with contextlib.closing(_create_checkpointer()) as checkpointer:
        restored = _restore_network(checkpointer, where)
    arrays = {
        name: np.asarray(x)
        for name, x in restored.state.items()
        if name.startswith(("params/", "model_state/"))
    }
    # Images are embedded with the moving average of the parameters, if there is one.
    arrays |= {
        f"params/{name.removeprefix('averaged/')}": np.asarray(x)
        for name, x in restored.state.items()
        if name.startswith("averaged/")
    }
    return Saved(where=where, arrays=arrays, config=restored.run["config"])


def _arrays_to_save(state: TrainState) -> dict[str, jax.Array]:
    """Returns the arrays of a replicated state by name.

    Of the devices of one process the first saves all: if each saved a part of every
    array, XLA would compile a program for each shape and part.
    """
    arrays = _flatten(devices.to_global(state))
    if jax.process_count() > 1:
        return arrays
    return {name: x.addressable_data(0) for name, x in arrays.items()}


def _create_checkpointer() -> ocp.Checkpointer:
    """Returns a reader of a single step."""
    handlers: Any = {**_handlers(), "metrics": ocp.JsonCheckpointHandler("metrics")}
    return ocp.Checkpointer(ocp.CompositeCheckpointHandler(**handlers))


def _restore_network(checkpointer: ocp.Checkpointer, where: pathlib.Path) -> Any:
    """Returns all arrays of a step, on one device, and the state of its run."""
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    metadata: Any = checkpointer.metadata(where).item_metadata
    abstract = {
        name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device)
        for name, x in metadata.state.items()
    }
    args = ocp.args.Composite(
        state=ocp.args.StandardRestore(abstract), run=ocp.args.JsonRestore()
    )
    return checkpointer.restore(where, args=args)


def digest_arrays(arrays: Mapping[str, Any]) -> str:
    """Returns a digest of arrays by name, SHA-256 as hexadecimal digits."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(name.encode() + np.asarray(array).tobytes())
    return digest.hexdigest()


def _best_step(folders: StepFolders, steps: Sequence[int]) -> int:
    """Returns the best step by the run's own metric, else the last.

    Raises:
      CheckpointError: A step is damaged and there is no copy of it.
    """

    def read(step: int, item: str) -> Any:
        where = folders.intact_directory(step) / str(step)
        args = ocp.args.Composite(**{item: ocp.args.JsonRestore()})
        with _readable(where), contextlib.closing(_create_checkpointer()) as reader:
            return reader.restore(where, args=args)[item]

    metric = read(steps[-1], "run")["config"]["evaluation.best_metric"]
    candidates = []
    for step in steps:
        is_evaluated = (folders.directory / str(step) / "metrics").exists()
        metrics = read(step, "metrics") if is_evaluated else {}
        if math.isfinite(metrics.get(metric, math.nan)):
            candidates.append((_quality(metrics, metric), step))
    return max(candidates, default=((0.0, 0), steps[-1]))[1]


def _quality(metrics: Mapping[str, float], best_metric: str) -> tuple[float, float]:
    """Returns the sorting key of a checkpoint; larger is better."""
    return metrics.get(best_metric, -math.inf), -metrics.get(_STEP, 0)


def _handlers() -> dict[str, ocp.CheckpointHandler]:
    return {
        "state": ocp.StandardCheckpointHandler(),
        "run": ocp.JsonCheckpointHandler(),
    }


def _flatten(state: object) -> dict[str, jax.Array]:
    paths, _ = jax.tree.flatten_with_path(state)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in paths
    }
