"""Commands with too little disk, too few descriptors or too little memory."""

import pathlib
import random

from tools.faults.commands import create_commands
from tools.faults.processes import Started, run_again, run_alone, share_programs
from tools.faults.samples import Samples
from tools.faults.trial import Outcome, Trial, judge

_SECONDS = 240.0


class Limited:
    """A command under a limit of `ulimit`, then without it.

    Under the limit it ends well or with one sentence; without it, as if there had been
    no limit before.

    Attributes:
      option: Option of `ulimit`.
      least: Lowest limit, in the unit of `ulimit`.
      most: Highest limit.
    """

    option = "-f"
    least, most = 1, 64

    def prepare(self, samples: Samples, folder: pathlib.Path) -> None:
        """Runs each command once without a limit."""
        share_programs(samples.folder / "programs")
        folder.mkdir()
        self._commands = create_commands(samples, samples.images)
        self._expected = {}
        for name, command in self._commands.items():
            out = folder / command.name
            run_alone(command.words(out), folder / f"{name}.txt", _SECONDS)
            self._expected[name] = command.read(out)

    def run(self, folder: pathlib.Path, rng: random.Random) -> Trial:
        """Runs a command under a limit, and again without it."""
        name = rng.choice(sorted(self._commands))
        limit = round(self.least * (self.most / self.least) ** rng.random())
        fault = f"{name} under ulimit {self.option} {limit}"
        command, place = self._commands[name], folder / "place"
        place.mkdir()
        out = place / command.name
        # The log of the process is under the limit, too.
        process = Started(
            command.words(out), folder / "log.txt", limits=f"{self.option} {limit}"
        )
        ended = process.wait(_SECONDS)
        if failure := ended.failure(fault):
            return failure
        if ended.status not in (0, 1):
            detail = f"status {ended.status}: {ended.last}"
            return Trial(fault, Outcome.SILENT, detail)
        if ended.status == 0 and name == "export":
            again = lambda: command.read(out)
        else:
            again = lambda: run_again(command.words(out)) or command.read(out)
        trial = judge(fault, ["never"], again, self._expected[name], _SECONDS)
        if ended.status and trial.outcome == Outcome.HARMLESS:
            return Trial(fault, Outcome.DETECTED, ended.last)
        return trial


class FullDisk(Limited):
    """Files that cannot grow beyond a few KiB, as on a full disk."""


class FewDescriptors(Limited):
    """Few open files."""

    option = "-n"
    least, most = 8, 64


class LittleMemory(Limited):
    """Little address space, in KiB."""

    option = "-v"
    least, most = 1_500_000, 12_000_000
