"""Damaged checkpoints of a run that goes on: the end must be the same to the bit."""

from collections.abc import Iterator
import contextlib
import dataclasses
import json
import pathlib
import random
import shutil

import jax
import numpy as np

from deeprank_jax.distributed import devices
from deeprank_jax.errors import UserError
from deeprank_jax.training import checkpoints
from deeprank_jax.training.experiment import Experiment, create_experiment, device_batch
from tools.faults import damage
from tools.faults.samples import Samples
from tools.faults.stored import digest
from tools.faults.trial import Trial, judge

# Validation metric by step; the best is neither the first nor one of the last two.
_METRICS = {2: 0.2, 4: 0.5, 6: 0.4, 8: 0.3}
_BEST, _STOPPED, _END = 4, 8, 10


class Checkpoints:
    """Checkpoints of a run that was stopped. A trial damages one file and goes on.

    The network, the sampler and the compiled step are those of real training; they are
    created once. Before the run goes on, its best network is read as `deeprank export`
    does, which may be refused by a sentence.
    """

    def prepare(self, samples: Samples, folder: pathlib.Path) -> None:
        """Trains until the run is stopped, and once undamaged to its end."""
        self._whole = folder / "whole"
        config = samples.config(num_steps=_END)
        metric = config.evaluation.best_metric
        self._metrics = {step: {metric: x} for step, x in _METRICS.items()}
        self._experiment = create_experiment(config, self._whole)
        self._start = jax.tree.map(np.asarray, self._experiment.state)
        self._resources = contextlib.ExitStack()
        self._resources.enter_context(self._experiment)
        self._train(self._experiment, 0, _STOPPED)
        self._experiment.checkpoints.wait()
        copy = _copy(self._whole, folder / "undamaged")
        self._expected = self._go_on(copy)

    def run(self, folder: pathlib.Path, rng: random.Random) -> Trial:
        """Damages one file of one step, or of the copy of the best, and goes on."""
        copy = _copy(self._whole, folder)
        path = rng.choice(damage.list_files(copy))
        name = path.relative_to(copy).as_posix()
        fault = damage.damage(path, rng, name)
        step = copy.joinpath(*name.split("/")[:2])
        return judge(
            fault, [str(step)], lambda: self._go_on_alone(copy), self._expected, 60.0
        )

    def _go_on_alone(self, workdir: pathlib.Path) -> dict[str, str]:
        """Returns the same as `_go_on`; a refusal is another result."""
        try:
            return self._go_on(workdir)
        except UserError as error:
            return {"refused": str(error)}

    def _go_on(self, workdir: pathlib.Path) -> dict[str, str]:
        """Returns digests of the networks and of the sampler that a run ends with."""
        best = _read_network(workdir)
        opened = checkpoints.Checkpoints(
            workdir / "checkpoints", best_metric=next(iter(self._metrics[_BEST]))
        )
        with contextlib.closing(opened):
            experiment = dataclasses.replace(
                self._experiment,
                checkpoints=opened,
                workdir=workdir,
                state=devices.replicate(self._start),
            )
            step = opened.latest_step() or 0
            if step:
                experiment.restore(step)
            self._train(experiment, step, _END)
            sampler = json.dumps(experiment.run_state(_END)["sampler"], sort_keys=True)
            last = _digest_state(experiment)
            experiment.restore(opened.best_step() or 0)
            return {
                "last": last,
                "sampler": sampler,
                "best": _digest_state(experiment),
                "exported": best or self._expected["exported"],
            }

    def _train(self, experiment: Experiment, step: int, end: int) -> None:
        """Trains from a step to another, and saves as the training loop does."""
        with experiment.stream(step) as stream:
            for batch in _first(stream, end - step):
                experiment.state, _ = experiment.train_step(
                    experiment.state, device_batch(batch)
                )
                step += 1
                if step % 2 == 0:
                    experiment.checkpoints.save(
                        step,
                        experiment.state,
                        experiment.run_state(step),
                        self._metrics.get(step),
                    )


def _first(stream: Iterator, num: int) -> Iterator:
    for _ in range(num):
        yield next(stream)


def _copy(workdir: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    for name in ("checkpoints", "checkpoints_copy"):
        shutil.copytree(workdir / name, target / "run" / name)
    return target / "run"


def _read_network(workdir: pathlib.Path) -> str | None:
    """Returns a digest of the exported network; None if it is refused."""
    try:
        saved = checkpoints.read_network(workdir)
    except UserError:
        return None
    return digest(*(saved.arrays[name] for name in sorted(saved.arrays)))


def _digest_state(experiment: Experiment) -> str:
    return digest(*map(np.asarray, jax.tree.leaves(experiment.state)))
