"""The training loop: step, log, evaluate, save."""

from collections.abc import Iterator, Mapping
import contextlib
import fcntl
import json
import pathlib
import time
from typing import Any

from absl import logging
import jax
import ml_collections
import numpy as np
import tqdm

from deeprank_jax import config as config_lib
from deeprank_jax import evaluation, finish, hosts, monitor, parallel, writers
from deeprank_jax.experiment import Experiment, create_experiment, device_batch
from deeprank_jax.sampling.level_shares import level_shares
from deeprank_jax.sampling.stream import Batch, BatchStream

# How many steps the host may run ahead of the devices before it looks at the metrics.
_LAG = 1

Stop = monitor.StopSignal | hosts.AgreedStop


class Stopped(RuntimeError):  # noqa: N818  Not an error.
    """SIGTERM came; what was learned is saved."""


class NonFiniteError(RuntimeError):
    """Too many steps in a row gave numbers that are not finite."""


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
    hosts.check_same({f"config.{key}": x for key, x in flat.items()}, workdir)
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
        if hosts.is_first():
            writers.write_json(
                workdir / "config.json", json.loads(config.to_json_best_effort())
            )
        # Made before training, so that data that cannot be measured says so now.
        with hosts.first_alone():
            splits = finish.create_split_evaluations(experiment)
            overlaps = finish.find_overlaps(experiment) if hosts.is_first() else {}
        best_metric = config.evaluation.best_metric
        evaluator = best_metric.split("/")[0]
        measured = {*splits["validation"].evaluators, "classification"}
        if evaluator not in measured:
            raise ValueError(
                f"config.evaluation.best_metric={best_metric!r} cannot be measured on "
                "the validation split, which holds no triplet; choose one of retrieval."
            )
        run_loop(experiment, step, splits["validation"])
        seconds = time.time() - started
        return finish.finish(experiment, splits, overlaps, seconds=seconds)


@contextlib.contextmanager
def _locked(workdir: pathlib.Path) -> Iterator[None]:
    """Keeps a second run out of the workdir; the lock ends with the process."""
    if not hosts.is_first():
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
    experiment: Experiment, step: int, validation: evaluation.SplitEvaluation
) -> None:
    """Trains from `step` to the end; `experiment.state` is then the last one."""
    config, num_steps = experiment.config, experiment.config.num_steps
    writer = writers.NoWriter()
    if hosts.is_first():
        writer = writers.MetricsWriter(experiment.workdir, first_step=step)
    bar = writers.progress_bar(
        num_steps, initial=step, description="train", shown=hosts.is_first()
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
        for batch, on_device in parallel.prefetch(stream, device_batch):
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
    return monitor.StopSignal() if jax.process_count() == 1 else hosts.AgreedStop()


def _validate(
    experiment: Experiment,
    validation: evaluation.SplitEvaluation,
    step: int,
    writer: writers.MetricsWriter,
    stop: Stop,
) -> dict[str, float] | None:
    """Returns the validation metrics, None if SIGTERM came on the way."""
    embed_fn = lambda images: experiment.embed(experiment.state, images)
    try:
        embedded = validation.embed(embed_fn, "validation", check=stop.check)
        told = experiment.measure_classes(experiment.state, stop.check)
    except monitor.StopRequested:
        return None
    values = evaluation.flatten(validation.measure(*embedded))
    values.update({f"classification/{name}": value for name, value in told.items()})
    writer.write(step, {f"validation/{name}": x for name, x in values.items()})
    return values


def _is_sound(experiment: Experiment, step: int, batch: Batch) -> bool:
    """Returns whether there is a way on from the state.

    A step can be finite and still leave parameters whose embeddings are not.
    """
    embeddings = experiment.embed(experiment.state, batch.images[:, 0])
    if parallel.all_agree(bool(np.isfinite(embeddings).all())):
        return True
    logging.warning("Step %d: not saved, since its embeddings are not finite.", step)
    return False


def _save(experiment: Experiment, step: int, found: Mapping[str, float] | None) -> None:
    experiment.checkpoints.save(
        step, experiment.state, experiment.run_state(step), found
    )


class _TrainingLog:
    """Averages metrics over logging intervals and watches for what goes wrong."""

    def __init__(
        self,
        experiment: Experiment,
        stream: BatchStream,
        writer: writers.MetricsWriter,
        bar: tqdm.tqdm,
    ):
        self._experiment = experiment
        self._stream, self._writer, self._bar = stream, writer, bar
        config = experiment.config
        self._monitor = None
        if config.task == "ranking":
            margin = None if config.loss.soft_margin else config.loss.margin
            self._monitor = monitor.TrainingMonitor(margin, config.batch_size)
        self._pending: list[tuple[int, Batch, Any]] = []
        self._interval: list[Mapping[str, float]] = []
        self.restart_clock()

    def add(self, step: int, batch: Batch, metrics: Mapping[str, Any]) -> None:
        """Takes a step's metrics, which the devices may still be computing."""
        self._pending.append((step, batch, metrics))
        while len(self._pending) > _LAG:
            self._take(*self._pending.pop(0))

    def flush(self, step: int) -> None:
        """Takes all that is pending and writes the interval, though it be short."""
        while self._pending:
            self._take(*self._pending.pop(0))
        if self._interval:
            self._write(step)

    def restart_clock(self) -> None:
        """Leaves out of the speed what was not training."""
        self._clock, self._waited = time.perf_counter(), self._stream.wait_seconds
        self._timed = 0

    def _take(self, step: int, batch: Batch, metrics: Mapping[str, Any]) -> None:
        found = dict(jax.device_get(metrics))
        finite = found.pop("finite")
        in_a_row = int(found.pop("skipped_in_a_row"))
        self._check_finite(step, batch, finite, in_a_row)
        # What is not finite would drown the mean.
        measured = {} if in_a_row else found
        watched = batch.drawn.watched()
        if self._experiment.config.task == "ranking":
            records = self._experiment.records["train"]
            labels = records.labels[batch.drawn.indices]
            watched.update(level_shares(labels, records.level_names))
        skipped = float(in_a_row > 0)
        self._interval.append({**measured, "skipped": skipped, **watched})
        self._timed += 1
        # Of all processes together.
        self._num_images = batch.drawn.indices.size * jax.process_count()
        self._bar.update()
        if step % self._experiment.config.log_every == 0:
            self._write(step)

    def _write(self, step: int) -> None:
        names = sorted({name for entry in self._interval for name in entry})
        means = {
            name: float(np.mean([e[name] for e in self._interval if name in e]))
            for name in names
        }
        self._interval = []
        if self._timed:
            seconds = time.perf_counter() - self._clock
            waited = self._stream.wait_seconds - self._waited
            images = self._num_images * self._timed
            means["images_per_second"] = images / seconds
            means["stall_share"] = waited / seconds
            shown = {
                "loss": f"{means.get('loss', np.nan):.3f}",
                "images": f"{means['images_per_second']:.0f}/s",
                "stall": f"{means['stall_share']:.1%}",
            }
            for name, key in (("active", "active_share"), ("top1", "top1")):
                if key in means:
                    shown[name] = f"{means[key]:.0%}"
            self._bar.set_postfix(shown, refresh=False)
        self.restart_clock()
        if "loss" in means and self._monitor is not None:
            for text in self._monitor.observe(means):
                logging.warning("Step %d: %s", step, text)
        self._writer.write(step, {f"train/{k}": v for k, v in means.items()})

    def _check_finite(
        self, step: int, batch: Batch, finite: np.ndarray, in_a_row: int
    ) -> None:
        if not in_a_row:
            return
        describe = self._experiment.records["train"].describe
        own = parallel.own_devices(finite).reshape(-1)
        records = batch.drawn.indices[~own].reshape(-1)
        if finite.all():
            culprits = "the gradient is not finite, though all embeddings are"
        elif own.all():
            culprits = "embeddings are not finite for records of another process"
        else:
            culprits = "embeddings are not finite for " + ", ".join(
                describe(int(i)) for i in records[:6]
            )
        logging.warning(
            "Step %d: %s; the step was not applied (%d in a row).",
            step,
            culprits,
            in_a_row,
        )
        if in_a_row >= self._experiment.config.max_skipped:
            saved = self._experiment.checkpoints.latest_step()
            goes_on = f"from step {saved}" if saved else "from the start"
            raise NonFiniteError(
                f"Step {step}: {in_a_row} steps in a row were not finite; last, "
                f"{culprits}. Lower config.optimizer.learning_rate or set "
                f"config.optimizer.clip_norm, then run again, to go on {goes_on}."
            )
