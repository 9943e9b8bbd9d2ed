"""The training loop: step, log, evaluate, save."""

from collections.abc import Iterator, Mapping
import contextlib
import fcntl
import json
import pathlib
import time

from absl import logging
import jax
import ml_collections
import numpy as np

from deeprank_jax import config as config_lib
from deeprank_jax import files
from deeprank_jax.distributed import devices, processes
from deeprank_jax.distributed import stop as stop_lib
from deeprank_jax.evaluation import split as split_lib
from deeprank_jax.sampling.stream import Batch
from deeprank_jax.training import final_report, metrics_writer
from deeprank_jax.training.experiment import Experiment, create_experiment, device_batch
from deeprank_jax.training.progress import _TrainingLog

Stop = stop_lib.StopSignal | stop_lib.AgreedStop


class Stopped(RuntimeError):  # noqa: N818  Not an error.
    """SIGTERM came; what was learned is saved."""


def train(
    config: ml_collections.ConfigDict, workdir: str | pathlib.Path
) -> pathlib.Path:
    """Trains, or goes on where an earlier process stopped, and writes the report.

    Args:
      config: see `configs/base.py`.
      workdir: where everything is written; created if it is not there.

    Returns:
      The report's path.

    Raises:
      ValueError: the config or the data cannot be used.
      CheckpointError: a checkpoint could not be saved or is of another run.
      NonFiniteError: training diverged.
      Stopped: SIGTERM came.
    """
    started = time.time()
    workdir = pathlib.Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    flat = config_lib.flatten_config(config)
    processes.check_same({f"config.{key}": x for key, x in flat.items()}, workdir)
    with _locked(workdir), create_experiment(config, workdir) as experiment:
        step = experiment.checkpoints.latest_step() or 0
        if step > config.num_steps:
            raise ValueError(
                f"{workdir} is at step {step}, past config.num_steps="
                f"{config.num_steps}: give another --workdir, or more steps."
            )
        if step:
            experiment.restore(step)
            logging.info("Going on from step %d of %s.", step, workdir)
        if processes.is_first():
            files.write_json(
                workdir / "config.json", json.loads(config.to_json_best_effort())
            )
        # Made before training, so that data that cannot be measured says so now.
        with processes.first_alone():
            splits = final_report.create_split_evaluations(experiment)
            overlaps = (
                final_report.find_leakage(experiment) if processes.is_first() else {}
            )
        best_metric = config.evaluation.best_metric
        evaluator = best_metric.split("/")[0]
        measured = {*splits["validation"].evaluators, config.task.name}
        if evaluator not in measured:
            raise ValueError(
                f"config.evaluation.best_metric={best_metric!r} cannot be measured on "
                "the validation split, which holds no triplet; choose one of retrieval."
            )
        run_loop(experiment, step, splits["validation"])
        seconds = time.time() - started
        return final_report.finish(experiment, splits, overlaps, seconds=seconds)


@contextlib.contextmanager
def _locked(workdir: pathlib.Path) -> Iterator[None]:
    """Keeps a second run out of the workdir; the lock ends with the process."""
    if not processes.is_first():
        yield
        return
    with (workdir / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"Another process is training in {workdir}: give another --workdir, "
                "or wait until it has ended."
            ) from error
        yield


def run_loop(
    experiment: Experiment, step: int, validation: split_lib.SplitEvaluation
) -> None:
    """Trains from `step` to the end; `experiment.state` is then the last one."""
    config, num_steps = experiment.config, experiment.config.num_steps
    writer = metrics_writer.NoWriter()
    if processes.is_first():
        writer = metrics_writer.MetricsWriter(experiment.workdir, first_step=step)
    bar = metrics_writer.progress_bar(
        num_steps, initial=step, description="train", shown=processes.is_first()
    )
    with (
        contextlib.closing(writer),
        bar,
        experiment.stream(step) as stream,
        _create_stop() as stop,
    ):
        log = _TrainingLog(experiment, stream, writer, bar)
        is_due = lambda step: step % config.eval_every == 0 or step == num_steps
        if step and is_due(step) and not experiment.checkpoints.has_metrics(step):
            # The process before was stopped between saving and validating.
            found = _validate(experiment, validation, step, writer, stop)
            if found:
                _save(experiment, step, found)
        for batch, on_device in devices.prefetch(stream, device_batch):
            # All is on the devices already: what is not would wait for the host.
            with jax.transfer_guard("disallow"):
                experiment.state, metrics = experiment.train_step(
                    experiment.state, on_device
                )
            step += 1
            log.add(step, batch, metrics)
            stopping, found = stop.reached(step), None
            if not stopping and is_due(step):
                log.flush(step)
                found = _validate(experiment, validation, step, writer, stop)
                stopping = stop.requested
            if stopping or found or step % config.checkpoint_every == 0:
                log.flush(step)
                if _is_sound(experiment, step, batch):
                    _save(experiment, step, found)
                log.restart_clock()
            if stopping or stop.requested:
                break
        if stop.requested:
            experiment.checkpoints.wait()
            saved = experiment.checkpoints.latest_step() or 0
            raise Stopped(f"SIGTERM: stopped; run again to go on from step {saved}.")


def _create_stop() -> Stop:
    """Returns what listens to SIGTERM."""
    return stop_lib.StopSignal() if jax.process_count() == 1 else stop_lib.AgreedStop()


def _validate(
    experiment: Experiment,
    validation: split_lib.SplitEvaluation,
    step: int,
    writer: metrics_writer.MetricsWriter,
    stop: Stop,
) -> dict[str, float] | None:
    """Returns the validation metrics, None if SIGTERM came on the way."""
    embed_fn = lambda images: experiment.embed(experiment.state, images)
    try:
        embedded = validation.embed(embed_fn, "validation", check=stop.check)
        task_metrics = experiment.validate_task(experiment.state, stop.check)
    except stop_lib.StopRequested:
        return None
    values = split_lib.flatten(validation.measure(*embedded))
    values.update(task_metrics)
    writer.write(step, {f"validation/{name}": x for name, x in values.items()})
    return values


def _is_sound(experiment: Experiment, step: int, batch: Batch) -> bool:
    """Returns whether there is a way on from the state.

    A step can be finite and still leave parameters whose embeddings are not.
    """
    embeddings = experiment.embed(experiment.state, batch.images[:, 0])
    if processes.all_agree(bool(np.isfinite(embeddings).all())):
        return True
    logging.warning("Step %d: not saved, since its embeddings are not finite.", step)
    return False


def _save(experiment: Experiment, step: int, found: Mapping[str, float] | None) -> None:
    experiment.checkpoints.save(
        step, experiment.state, experiment.run_state(step), found
    )
