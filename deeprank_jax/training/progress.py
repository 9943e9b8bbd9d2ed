"""Metrics of training steps: averaging, logging and the watch for bad numbers."""

from collections.abc import Iterator, Mapping
import contextlib
import time

from absl import logging
import jax
import numpy as np

from deeprank_jax.distributed import devices, processes
from deeprank_jax.errors import UserError
from deeprank_jax.progress import Bar, working
from deeprank_jax.report.metric_notes import ACTIVE, STALL
from deeprank_jax.report.metric_tables import format_metric
from deeprank_jax.sampling.groups import Groups
from deeprank_jax.sampling.level_shares import level_shares
from deeprank_jax.sampling.stream import Batch, BatchStream
from deeprank_jax.training import metrics_writer
from deeprank_jax.training.experiment import Experiment
from deeprank_jax.training.step import Mean, Metrics

# Steps that the host may run ahead of the devices before it reads the metrics.
_LAG = 1


class NonFiniteError(UserError):
    """Too many steps in a row gave non-finite numbers."""


class TrainingLog:
    """Averages metrics over logging intervals, and warns of unhealthy training."""

    def __init__(
        self,
        experiment: Experiment,
        stream: BatchStream,
        writer: metrics_writer.MetricsWriter,
        bar: Bar,
    ):
        self._experiment = experiment
        self._stream, self._writer, self._bar = stream, writer, bar
        self._monitor = experiment.task.health()
        self._has_explained = False
        self._pending: list[tuple[int, Batch, Metrics]] = []
        self._interval: list[Mapping[str, float]] = []
        self._has_started = False
        self._best_metric: str = experiment.config.evaluation.best_metric
        self._best: tuple[int, float] | None = None
        best_step = experiment.checkpoints.best_step()
        if metrics := experiment.checkpoints.metrics(best_step):
            self._best = int(best_step or 0), metrics.get(self._best_metric, -np.inf)
        self.restart_clock()

    def add(self, step: int, batch: Batch, metrics: Metrics) -> None:
        """Adds a step's metrics, which the devices may still be computing."""
        self._pending.append((step, batch, metrics))
        while len(self._pending) > _LAG:
            self._take(*self._pending.pop(0))

    def flush(self, step: int) -> None:
        """Processes pending metrics and writes the interval, even if incomplete."""
        while self._pending:
            self._take(*self._pending.pop(0))
        if self._interval:
            self._write(step)

    def restart_clock(self) -> None:
        """Excludes the time since the last step from the speed."""
        self._clock, self._waited = time.perf_counter(), self._stream.wait_seconds
        self._timed = 0

    @property
    def checksum(self) -> str:
        """Returns the checksum of all logged metrics."""
        return self._writer.checksum

    @contextlib.contextmanager
    def compiling(self) -> Iterator[None]:
        """Shows that the first step is compiled, and excludes it from the speed."""
        if self._has_started:
            yield
            return
        with working("Compiling the training step", shown=processes.is_first()):
            yield
        self._has_started = True
        self._bar.restart_clock()
        self.restart_clock()

    def report_validation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Says how good a step is that was validated and then saved."""
        value = metrics[self._best_metric]
        name = self._best_metric.split("/", 1)[-1]
        rank = value if np.isfinite(value) else -np.inf
        if self._best is None or rank > self._best[1]:
            self._best, comparison = (step, rank), ", the best so far"
        else:
            best_step, best = self._best
            best_text = format_metric(name, best)
            comparison = f"; the best is still {best_text} of step {best_step:,}"
        logging.info(
            "Step %s of %s: %s on validation is %s%s. Saved.",
            f"{step:,}",
            f"{self._experiment.config.num_steps:,}",
            self._best_metric,
            format_metric(name, value),
            comparison,
        )

    def _take(self, step: int, batch: Batch, metrics: Metrics) -> None:
        values = dict(jax.device_get(metrics))
        finite = values.pop("finite")
        in_a_row = int(values.pop("skipped_in_a_row"))
        self._check_finite(step, batch, finite, in_a_row)
        # Non-finite values would make the mean non-finite.
        values = {} if in_a_row else _divide_means(values)
        sampler_metrics = batch.groups.metrics()
        if isinstance(batch.groups, Groups):
            records = self._experiment.records["train"]
            labels = records.labels[batch.groups.indices]
            sampler_metrics.update(
                level_shares(labels, records.level_names, batch.groups.num_positives)
            )
        skipped = float(in_a_row > 0)
        self._interval.append({**values, "skipped": skipped, **sampler_metrics})
        self._timed += 1
        # Images of all processes together.
        self._num_images = batch.groups.indices.size * jax.process_count()
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
            postfix = {
                "loss": f"{means.get('loss', np.nan):.3f}",
                "images": f"{means['images_per_second']:.0f}/s",
                "stall": f"{means['stall_share']:.1%}",
            }
            for name, key in (("active", "active_share"), ("top1", "top1")):
                if key in means:
                    postfix[name] = f"{means[key]:.0%}"
            self._bar.show(postfix)
            self._explain(postfix)
        self.restart_clock()
        if "loss" in means and self._monitor is not None:
            for text in self._monitor.observe(means):
                logging.warning("Step %d: %s", step, text)
        self._writer.write(step, {f"train/{k}": v for k, v in means.items()})

    def _explain(self, postfix: Mapping[str, str]) -> None:
        """Logs the meaning of two words of the bar, the first time that it has them."""
        if self._has_explained or self._bar.disable:
            return
        self._has_explained = True
        text = f"Beside the bar, stall is the {STALL}"
        if "active" in postfix:
            text += f", and active the {ACTIVE}"
        logging.info("%s.", text)

    def _check_finite(
        self, step: int, batch: Batch, finite: np.ndarray, in_a_row: int
    ) -> None:
        if not in_a_row:
            return
        describe = self._experiment.records["train"].describe
        local_finite = devices.own_devices(finite).reshape(-1)
        records = batch.groups.indices[~local_finite].reshape(-1)
        if finite.all():
            culprits = "the gradient is not finite, though all embeddings are"
        elif local_finite.all():
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
            start = f"from step {saved}" if saved else "from the start"
            raise NonFiniteError(
                f"Step {step}: {in_a_row} steps in a row were not finite; last, "
                f"{culprits}. Lower config.optimizer.learning_rate or set "
                f"config.optimizer.clip_norm, then run again, to continue {start}."
            )


def _divide_means(metrics: Metrics) -> Metrics:
    """Returns metrics with the value of each `Mean`, without those of no value."""
    values = {}
    for name, value in metrics.items():
        if not isinstance(value, Mean):
            values[name] = value
        elif value.count:
            values[name] = value.total / value.count
    return values
