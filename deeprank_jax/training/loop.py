"""The training loop: step, log, evaluate, save."""

from collections.abc import Mapping
import contextlib
import functools
import pathlib
import signal
import time

from absl import logging
import jax
import ml_collections
import numpy as np

from deeprank_jax import config as config_lib
from deeprank_jax import files
from deeprank_jax.distributed import devices, processes, signals
from deeprank_jax.distributed import stop as stop_lib
from deeprank_jax.errors import ConfigError
from deeprank_jax.evaluation import split as split_lib
from deeprank_jax.progress import Bar, Progress, working
from deeprank_jax.sampling.stream import Batch
from deeprank_jax.training import (
    data_defaults,
    final_report,
    finished,
    first_stage,
    metrics_writer,
    summary,
    whitening,
)
from deeprank_jax.training.experiment import Experiment, create_experiment, device_batch
from deeprank_jax.training.progress import TrainingLog
from deeprank_jax.training.step import Metrics
from deeprank_jax.training.workdir import Workdir


class Stopped(RuntimeError):  # noqa: N818  Not an error.
    """A signal stopped the run; its progress is saved.

    Attributes:
      number: The signal.
    """

    def __init__(self, number: signal.Signals, step: int):
        """Creates the exception.

        Args:
          number: The signal.
          step: Step of the last checkpoint.
        """
        super().__init__(
            f"{number.name}: stopped; run again to continue from step {step}."
        )
        self.number = number


def train(
    config: ml_collections.ConfigDict,
    workdir: str | pathlib.Path,
    *,
    progress: Progress | None = None,
    command: str = "",
) -> pathlib.Path:
    """Trains, or continues where an earlier process stopped, and writes the report.

    Args:
      config: Whole configuration; `configs/base.py` has every key.
      workdir: Folder of the run, created if it is missing.
      progress: Function that receives the progress; None for a bar.
      command: Command line of the run, for the report.

    Returns:
      The report's path.

    Raises:
      ConfigError: The config cannot be used.
      DataError: The data cannot be used.
      CheckpointError: A checkpoint could not be saved or belongs to another run.
      NonFiniteError: Training diverged.
      Stopped: A signal stopped the run.
    """
    workdir = pathlib.Path(workdir)
    files.create_folder(workdir)
    config_lib.check_keys(config, complete=True)
    config_lib.check_config(config)
    if config.first_stage:
        config = first_stage.train_first_stage(
            config,
            workdir,
            functools.partial(train, progress=progress, command=command),
        )
    started = time.time()
    saved = Workdir(workdir).config
    with _showing("Reading the data"):
        config = data_defaults.fit_to_data(config, saved)
    config = config_lib.resolve_config(config, saved)
    flat = config_lib.flatten_config(config)
    processes.check_same({f"config.{key}": x for key, x in flat.items()}, workdir)
    with _locked(workdir):
        with _showing("Reading the data"):
            is_finished = finished.is_finished(config, workdir)
        if is_finished:
            logging.info(
                "%s is finished: nothing is trained or measured again. To measure it "
                "again, delete its results.json.",
                workdir,
            )
            return Workdir(workdir).report / "index.html"
        return _train(config, workdir, started, progress, command)


def _train(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    started: float,
    progress: Progress | None,
    command: str,
) -> pathlib.Path:
    """Trains in a folder that is locked; see `train`."""
    saved = Workdir(workdir).config
    with _create_experiment(config, workdir) as experiment:
        latest = experiment.checkpoints.latest_step()
        step = latest or 0
        _check_step(config, step, workdir)
        for sentence in summary.describe_start(experiment):
            logging.info("%s", sentence)
        whitening.check_whitening(experiment, saved if latest is not None else None)
        if latest is not None:
            experiment.restore(step)
            logging.info("Continuing from step %d of %s.", step, workdir)
        if processes.is_first():
            Workdir(workdir).remove_damaged()
            Workdir(workdir).checksums.unlink(missing_ok=True)
            files.write_json(saved, config_lib.saved_values(config))
            Workdir(workdir).seal()
        # Before training, so that data that cannot be evaluated raise their error now.
        with _showing("Preparing the evaluation"), processes.first_alone():
            splits = final_report.create_split_evaluations(experiment)
            is_first = processes.is_first()
            leakages = final_report.find_leakage(experiment) if is_first else {}
        _check_evaluated(config, splits["validation"])
        bar = _create_bar(config.num_steps, step, progress)
        run_loop(experiment, step, splits["validation"], bar)
        seconds = time.time() - started
        return final_report.finish(
            experiment, splits, leakages, seconds=seconds, command=command
        )


def _create_experiment(
    config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> Experiment:
    """Returns the parts of a run, and shows meanwhile that they are created."""
    with _showing("Reading the data and creating the network"):
        return create_experiment(config, workdir)


def _showing(description: str) -> contextlib.AbstractContextManager[None]:
    """Returns a context that shows an operation, in the first process alone."""
    return working(description, shown=processes.is_first())


def _check_step(
    config: ml_collections.ConfigDict, step: int, workdir: pathlib.Path
) -> None:
    """Checks that a run is not past its end.

    Raises:
      ConfigError: It is.
    """
    if step > config.num_steps:
        raise ConfigError(
            f"{workdir} is at step {step}, past config.num_steps="
            f"{config.num_steps}: give another --workdir, or more steps."
        )


def _locked(workdir: pathlib.Path) -> contextlib.AbstractContextManager[object]:
    """Returns the lock of a run, which only the first process takes."""
    if not processes.is_first():
        return contextlib.nullcontext()
    return Workdir(workdir).locked()


def _create_bar(total: int, step: int, progress: Progress | None) -> Bar:
    """Returns the bar of the training steps, which only the first process shows."""
    return metrics_writer.progress_bar(
        total,
        initial=step,
        description="train",
        shown=processes.is_first(),
        progress=progress,
    )


def run_loop(
    experiment: Experiment,
    step: int,
    validation: split_lib.SplitEvaluation,
    bar: Bar,
) -> None:
    """Trains from `step` to the end, and leaves the last state in `experiment.state`.

    Args:
      experiment: Parts of the run, with the state after `step`.
      step: Number of steps that are done.
      validation: Evaluation of the validation split.
      bar: Progress bar, closed at the end.

    Raises:
      NonFiniteError: Training diverged.
      Stopped: A signal stopped the run.
    """
    config = experiment.config
    writer = _create_writer(experiment, step)
    with (
        contextlib.closing(writer),
        bar,
        experiment.stream(step) as stream,
        stop_lib.create_stop() as stop,
    ):
        log = TrainingLog(experiment, stream, writer, bar)
        if _is_due(config, step) and not experiment.checkpoints.metrics(step):
            # The network to start from, or one that was saved but not yet validated.
            metrics = _validate(experiment, validation, step, writer, stop)
            if metrics:
                _save(experiment, step, metrics, log)
        ends = stop.requested or _has_converged(experiment, step)
        if not ends and step < config.num_steps:
            _compile_validation(experiment)
        log.restart_clock()
        to_devices = functools.partial(device_batch, teacher=experiment.teacher)
        for batch, on_device in () if ends else devices.prefetch(stream, to_devices):
            step_metrics = _run_step(experiment, on_device, log)
            step += 1
            log.add(step, batch, step_metrics)
            stopping, metrics = stop.reached(step), None
            if not stopping and _is_due(config, step):
                log.flush(step)
                metrics = _validate(experiment, validation, step, writer, stop)
                stopping = stop.requested
            if stopping or metrics or step % config.checkpoint_every == 0:
                log.flush(step)
                if _has_finite_embeddings(experiment, step, batch):
                    _save(experiment, step, metrics, log)
                log.restart_clock()
            converged = metrics is not None and _has_converged(experiment, step)
            if stopping or converged:
                break
        experiment.checkpoints.wait()
    if stop.requested:
        raise Stopped(stop.number, experiment.checkpoints.latest_step() or 0)


def _run_step(
    experiment: Experiment, on_device: Mapping[str, jax.Array], log: TrainingLog
) -> Metrics:
    """Runs one step, which the first call compiles, and returns its metrics."""
    # Everything is on the devices already: a transfer would wait for the host.
    with jax.transfer_guard("disallow"), log.compiling():
        experiment.state, metrics = experiment.train_step(experiment.state, on_device)
    return metrics


def _compile_validation(experiment: Experiment) -> None:
    """Compiles the functions of validation while there are no new steps to lose.

    A signal cannot interrupt a compilation, which may take longer than a process that
    is told to end is given.
    """
    config = experiment.config
    shape = (config.evaluation.batch_size, *2 * (config.data.image_size,), 3)
    blank = np.zeros(shape, np.uint8)
    with _showing("Compiling the validation"):
        experiment.embed(experiment.state, blank)
        if experiment.task.METRICS:
            experiment.logits(experiment.state, blank)


def _create_writer(experiment: Experiment, step: int) -> metrics_writer.MetricsWriter:
    """Returns the writer of the metrics, which only the first process writes."""
    if not processes.is_first():
        return metrics_writer.NoWriter()
    return metrics_writer.MetricsWriter(
        experiment.workdir, first_step=step, checksum=experiment.log_checksum
    )


def _is_due(config: ml_collections.ConfigDict, step: int) -> bool:
    """Returns whether validation is due after a step.

    Before the first step it is if the network starts from trained weights, which may
    already be the best.
    """
    if not step:
        return bool(config.init_from or config.model.weights)
    return step % config.eval_every == 0 or step == config.num_steps


def _has_converged(experiment: Experiment, step: int) -> bool:
    """Returns whether the last validations, `config.patience`, were no better."""
    config = experiment.config
    best = experiment.checkpoints.best_step() if config.patience else None
    if best is None or step - best < config.patience * config.eval_every:
        return False
    if step < config.num_steps:
        logging.info(
            "Training ends at step %d: no validation after step %d was better.",
            step,
            best,
        )
    return True


def _validate(
    experiment: Experiment,
    validation: split_lib.SplitEvaluation,
    step: int,
    writer: metrics_writer.MetricsWriter,
    stop: stop_lib.Stop,
) -> dict[str, float] | None:
    """Returns the validation metrics; None if a stop was requested meanwhile."""
    embed_fn = lambda images: experiment.embed(experiment.state, images)
    try:
        with stop.interruptible():
            embedded = validation.embed(embed_fn, "validation", check=stop.check)
            changed = validation.embed_changed(embed_fn, "validation", check=stop.check)
            task_metrics = experiment.validate_task(experiment.state, stop.check)
            with _showing("Measuring validation"):
                values = split_lib.flatten(validation.measure(*embedded, changed))
    except signals.StopRequested:
        return None
    values.update(task_metrics)
    _check_measured(experiment.config.evaluation.best_metric, values)
    writer.write(step, {f"validation/{name}": x for name, x in values.items()})
    return values


def _check_evaluated(
    config: ml_collections.ConfigDict, validation: split_lib.SplitEvaluation
) -> None:
    """Checks that the evaluator of the metric that selects the checkpoint is there.

    Raises:
      ConfigError: The validation split gives it nothing to measure.
    """
    names = {*validation.evaluators, config.task.name}
    best_metric = config.evaluation.best_metric
    if best_metric.split("/")[0] not in names:
        raise ConfigError(
            f"config.evaluation.best_metric={best_metric!r} cannot be measured on the "
            "validation split, which has nothing of that kind, e.g. no triplet; choose "
            f"a metric of {', '.join(sorted(validation.evaluators))}."
        )


def _check_measured(best_metric: str, values: Mapping[str, float]) -> None:
    """Checks that validation has measured the metric that selects the checkpoint.

    Raises:
      ConfigError: It has not, e.g. for want of triplets of that kind.
    """
    if best_metric not in values:
        raise ConfigError(
            f"config.evaluation.best_metric={best_metric!r} cannot be measured on the "
            f"validation split; choose one of {', '.join(sorted(values))}."
        )


def _has_finite_embeddings(experiment: Experiment, step: int, batch: Batch) -> bool:
    """Returns whether training can continue from the state.

    A step can be finite and still leave parameters with non-finite embeddings.
    """
    size = experiment.config.evaluation.batch_size
    images = batch.images[:size, 0]
    # Padded, so that no other program is compiled than for validation.
    padding = ((0, size - len(images)), *((0, 0),) * 3)
    embeddings = experiment.embed(experiment.state, np.pad(images, padding))
    embeddings = embeddings[: len(images)]
    if processes.all_agree(bool(np.isfinite(embeddings).all())):
        return True
    logging.warning("Step %d: not saved, since its embeddings are not finite.", step)
    return False


def _save(
    experiment: Experiment,
    step: int,
    metrics: Mapping[str, float] | None,
    log: TrainingLog,
) -> None:
    run_state = {**experiment.run_state(step), "log": log.checksum}
    experiment.checkpoints.save(step, experiment.state, run_state, metrics)
    if metrics:
        log.report_validation(step, metrics)
