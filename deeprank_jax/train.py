"""The training loop: step, log, evaluate, save."""

from collections.abc import Mapping
import contextlib
import pathlib
import time
from typing import Any

from absl import logging
import jax
import ml_collections
import numpy as np
import tqdm

from deeprank_jax import evaluation, finish, monitor, parallel, writers
from deeprank_jax.experiment import Experiment, create_experiment, device_batch
from deeprank_jax.sampling.level_shares import level_shares
from deeprank_jax.sampling.stream import TripletBatch, TripletStream

# How many steps the host may run ahead of the devices before it looks at the metrics.
_LAG = 1


class Stopped(SystemExit):
    """SIGTERM came; what was learned is saved. Its exit status is the signal's."""


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
    with monitor.StopSignal() as stop, create_experiment(config, workdir) as experiment:
        step = experiment.checkpoints.latest_step() or 0
        if step:
            experiment.restore(step)
            logging.info("Going on from step %d of %s.", step, workdir)
        (workdir / "config.json").write_text(config.to_json_best_effort(indent=2))
        run_loop(experiment, step, stop)
        return finish.finish(experiment, seconds=time.time() - started)


def run_loop(experiment: Experiment, step: int, stop: monitor.StopSignal) -> None:
    """Trains from `step` to the end; `experiment.state` is then the last one."""
    config, num_steps = experiment.config, experiment.config.num_steps
    validation = finish.create_split_evaluation(experiment, "validation")
    writer = writers.MetricsWriter(experiment.workdir, first_step=step)
    bar = writers.progress_bar(num_steps, initial=step, description="train")
    with contextlib.closing(writer), bar, experiment.stream(step) as stream:
        log = _TrainingLog(experiment, stream, writer, bar)
        for batch, on_device in parallel.prefetch(stream, device_batch):
            experiment.state, metrics = experiment.train_step(
                experiment.state, on_device
            )
            step += 1
            log.add(step, batch, metrics)
            found = None
            if step % config.eval_every == 0 or step == num_steps:
                log.flush()
                found = _validate(experiment, validation, step, writer)
                log.restart_clock()
            save_now = step % config.checkpoint_every == 0 or stop.requested
            if save_now or found is not None:
                log.flush()
                experiment.checkpoints.save(
                    step, experiment.state, experiment.sampler_state(step), found
                )
            if stop.requested and step < num_steps:
                experiment.checkpoints.wait()
                logging.warning("SIGTERM: saved step %d; run again to go on.", step)
                raise Stopped(143)


def _validate(
    experiment: Experiment,
    validation: evaluation.SplitEvaluation,
    step: int,
    writer: writers.MetricsWriter,
) -> dict[str, float]:
    embed_fn = lambda images: experiment.embed(experiment.state, images)
    values = validation.measure(*validation.embed(embed_fn, "validation"))
    writer.write(step, evaluation.flatten(values, "validation"))
    return {
        f"{evaluator}/{metric}": value
        for evaluator, metrics in values.items()
        for metric, value in metrics.items()
    }


class _TrainingLog:
    """Averages metrics over logging intervals and watches for what goes wrong."""

    def __init__(
        self,
        experiment: Experiment,
        stream: TripletStream,
        writer: writers.MetricsWriter,
        bar: tqdm.tqdm,
    ):
        self._experiment = experiment
        self._stream, self._writer, self._bar = stream, writer, bar
        self._collapse = monitor.CollapseMonitor(experiment.config.loss.margin)
        self._pending: list[tuple[int, TripletBatch, Any]] = []
        self._interval: list[Mapping[str, float]] = []
        self._shown = 0
        self.restart_clock()

    def add(self, step: int, batch: TripletBatch, metrics: Mapping[str, Any]) -> None:
        """Takes a step's metrics, which the devices may still be computing."""
        self._pending.append((step, batch, metrics))
        while len(self._pending) > _LAG:
            self._take(*self._pending.pop(0))

    def flush(self) -> None:
        """Waits for the devices and takes all that is pending."""
        while self._pending:
            self._take(*self._pending.pop(0))

    def restart_clock(self) -> None:
        """Leaves out of the speed what was not training."""
        self._clock, self._waited = time.perf_counter(), self._stream.wait_seconds
        self._timed = 0

    def _take(self, step: int, batch: TripletBatch, metrics: Mapping[str, Any]) -> None:
        found = dict(jax.device_get(metrics))
        finite = found.pop("finite").reshape(-1)
        self._check_finite(step, batch, finite, int(found.pop("skipped_in_a_row")))
        self._interval.append(
            {
                **found,
                **level_shares(
                    batch.triplets.attributes,
                    self._experiment.records["train"].level_names,
                ),
                **{f"sampler/{k}": v for k, v in batch.triplets.counts.items()},
            }
        )
        self._timed += 1
        self._bar.update()
        if step % self._experiment.config.log_every == 0:
            self._write(step)

    def _write(self, step: int) -> None:
        names = sorted({name for entry in self._interval for name in entry})
        means = {
            name: float(np.mean([entry.get(name, 0.0) for entry in self._interval]))
            for name in names
        }
        self._interval = []
        if self._timed:
            seconds = time.perf_counter() - self._clock
            waited = self._stream.wait_seconds - self._waited
            images = 3 * self._experiment.config.batch_size * self._timed
            means["images_per_second"] = images / seconds
            means["stall_share"] = waited / seconds
            self._bar.set_postfix(
                loss=f"{means['loss']:.3f}",
                active=f"{means['active_share']:.0%}",
                images=f"{means['images_per_second']:.0f}/s",
                stall=f"{means['stall_share']:.1%}",
                refresh=False,
            )
        self.restart_clock()
        for text in self._collapse.observe(means):
            logging.warning("Step %d: %s", step, text)
        self._writer.write(step, {f"train/{k}": v for k, v in means.items()})

    def _check_finite(
        self, step: int, batch: TripletBatch, finite: np.ndarray, in_a_row: int
    ) -> None:
        if not in_a_row:
            return
        describe = self._experiment.records["train"].describe
        records = batch.triplets.indices[~finite] if not finite.all() else None
        culprits = (
            "the gradient is not finite, though all embeddings are"
            if records is None
            else "embeddings are not finite for "
            + ", ".join(describe(int(i)) for i in records.reshape(-1)[:6])
        )
        logging.warning(
            "Step %d: %s; the step was not applied (%d in a row).",
            step,
            culprits,
            in_a_row,
        )
        if in_a_row >= self._experiment.config.max_skipped:
            raise NonFiniteError(
                f"Step {step}: {in_a_row} steps in a row were not finite; last, "
                f"{culprits}. Lower config.optimizer.learning_rate or set "
                "config.optimizer.clip_norm, then run again: the last checkpoint is "
                "from before."
            )
