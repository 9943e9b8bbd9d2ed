"""Commands that are told to end: at once, with a word, and so that they can go on."""

import pathlib
import random
import shutil
import signal

from tools.faults.commands import Command, create_commands
from tools.faults.processes import (
    Started,
    run_again,
    run_alone,
    share_programs,
    slowness,
)
from tools.faults.samples import Samples
from tools.faults.trial import Outcome, Trial, judge

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# A compilation cannot be interrupted.
_END_SECONDS, _SECONDS = 15.0, 240.0
# Share of trials that start Python, too, and seconds of the processor for that.
_SHARE_STARTED, _START_SECONDS = 0.1, 2.5


class Signals:
    """SIGINT, SIGTERM or SIGHUP to a command at any moment of its life.

    The command must end in time, without a traceback, with the status of the signal,
    leave no scratch file, and give the usual result when it is run again.
    """

    def prepare(self, samples: Samples, folder: pathlib.Path) -> None:
        """Runs each command once without a signal."""
        share_programs(samples.folder / "programs")
        folder.mkdir()
        self._commands = create_commands(samples, samples.images)
        self._expected, self._durations = {}, {}
        for name, command in self._commands.items():
            out, log = folder / command.name, folder / f"{name}.txt"
            words = command.words(out)
            self._durations[name] = run_alone(words, log, _SECONDS, is_forked=True)
            self._expected[name] = command.read(out)

    def run(self, folder: pathlib.Path, rng: random.Random) -> Trial:
        """Sends a signal to a command, and runs it again."""
        name = rng.choice(sorted(self._commands))
        command, number = self._commands[name], rng.choice(_SIGNALS)
        place = folder / "place"
        place.mkdir()
        is_forked = rng.random() >= _SHARE_STARTED
        seconds = rng.uniform(0.02, self._durations[name])
        if not is_forked:
            seconds = rng.uniform(0.3, _START_SECONDS)
        fault = f"{number.name} to {name} after {seconds:.2f} s of the processor"
        words = command.words(place / command.name)
        process = Started(words, folder / "log.txt", is_forked=is_forked)
        process.work(seconds, _SECONDS)
        process.process.send_signal(number)
        ended = process.wait(_END_SECONDS * slowness())
        fault += f", which ended {ended.seconds:.1f} s later"
        failure = ended.failure(fault)
        if failure is None and ended.status not in (0, 128 + number, -number):
            detail = f"status {ended.status}: {ended.last}"
            failure = Trial(fault, Outcome.SILENT, detail)
        if failure is None and (scratch := _list_scratch(place)):
            failure = Trial(fault, Outcome.SILENT, f"left {', '.join(scratch)}")
        return failure or self._run_again(name, command, place, fault)

    def _run_again(
        self, name: str, command: Command, place: pathlib.Path, fault: str
    ) -> Trial:
        """Runs a command again that was told to end."""
        out = place / command.name

        def read() -> object:
            if name == "export" and out.exists():  # It had ended before the signal.
                shutil.rmtree(out)
            sentence = run_again(command.words(out))
            return sentence or command.read(out)

        return judge(fault, ["never"], read, self._expected[name], _SECONDS)


def _list_scratch(folder: pathlib.Path) -> list[str]:
    """Returns the names of scratch files and folders, which begin with a dot."""
    paths = sorted(folder.glob(".*")) + sorted(folder.glob("*/.*.tmp"))
    return [path.name for path in paths if path.suffix != ".lock"]
