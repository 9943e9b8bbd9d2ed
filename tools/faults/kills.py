"""Training processes that are killed; the run that goes on must end the same."""

import pathlib
import random
import time

from tools.faults.commands import create_commands
from tools.faults.processes import (
    Started,
    run_again,
    run_alone,
    share_programs,
    slowness,
)
from tools.faults.samples import Samples
from tools.faults.trial import Trial, judge

_SECONDS = 240.0


class Kills:
    """SIGKILL of a training process, half of the time while it saves."""

    def prepare(self, samples: Samples, folder: pathlib.Path) -> None:
        """Trains once without a kill."""
        share_programs(samples.folder / "programs")
        folder.mkdir()
        self._command = create_commands(samples, samples.images)["train"]
        whole, log = folder / "run", folder / "log.txt"
        words = self._command.words(whole)
        self._seconds = run_alone(words, log, _SECONDS, is_forked=True)
        self._expected = self._command.read(whole)

    def run(self, folder: pathlib.Path, rng: random.Random) -> Trial:
        """Kills a process, and lets another one go on."""
        workdir = folder / "run"
        words = self._command.words(workdir)
        process = Started(words, folder / "log.txt", is_forked=True)
        fault = self._kill(process, workdir, rng)
        return judge(
            fault, ["never"], lambda: self._go_on(workdir), self._expected, _SECONDS
        )

    def _go_on(self, workdir: pathlib.Path) -> object:
        sentence = run_again(self._command.words(workdir))
        return sentence or self._command.read(workdir)

    def _kill(self, process: Started, workdir: pathlib.Path, rng: random.Random) -> str:
        """Kills the process at a moment, and returns a phrase for it."""
        started = time.monotonic()
        if rng.random() < 0.5:
            seconds = rng.uniform(0.0, 1.0) * self._seconds
            phrase = f"killed after {seconds:.2f} s of the processor"
            process.work(seconds, _SECONDS)
        else:
            step = rng.randrange(2, 17, 2)
            delay = rng.uniform(0, 0.06) * slowness()
            phrase = f"killed {delay * 1000:.0f} ms after step {step} appeared"
            while process.process.poll() is None and not _appeared(workdir, step):
                time.sleep(0.001)
                if time.monotonic() - started > _SECONDS:
                    break
            time.sleep(delay)
        has_ended = process.process.poll() is not None
        process.kill()
        return phrase + (", when it had ended" if has_ended else "")


def _appeared(workdir: pathlib.Path, step: int) -> bool:
    """Returns whether a step, or its scratch folder, is there."""
    return any((workdir / "checkpoints").glob(f"{step}*"))
