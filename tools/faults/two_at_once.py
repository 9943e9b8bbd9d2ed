"""Two commands at once with one output: one of them has it, the other is refused."""

import pathlib
import random
import shutil
import time

from tools.faults.commands import create_commands
from tools.faults.processes import Ended, Started, run_alone, share_programs
from tools.faults.samples import Samples
from tools.faults.trial import Outcome, Trial, judge

_SECONDS = 240.0


class TwoAtOnce:
    """Two of a command at nearly the same moment, on two folders of images.

    The result must be that of the one or the other as a whole; of an index also both.
    Who is refused must say so, and name the output.
    """

    def prepare(self, samples: Samples, folder: pathlib.Path) -> None:
        """Runs each command alone on each of the folders."""
        share_programs(samples.folder / "programs")
        folder.mkdir()
        other = folder / "other"
        for path in sorted(samples.images.glob("*/[0-2].png")):
            target = other / f"other {path.parent.name}" / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
        both = [create_commands(samples, x) for x in (samples.images, other)]
        self._pairs = {name: [x[name] for x in both] for name in both[0]}
        self._expected = {}
        for name, pair in self._pairs.items():
            results = []
            for number, command in enumerate(pair):
                out = folder / str(number) / command.name
                out.parent.mkdir(exist_ok=True)
                run_alone(command.words(out), folder / "log.txt", _SECONDS)
                results.append(command.read(out))
            if name == "index":
                for order in (pair, pair[::-1]):
                    out = folder / f"both {order[0] is pair[0]}" / "index"
                    out.parent.mkdir()
                    for command in order:
                        run_alone(command.words(out), folder / "log.txt", _SECONDS)
                    results.append(pair[0].read(out))
            self._expected[name] = results

    def run(self, folder: pathlib.Path, rng: random.Random) -> Trial:
        """Starts the two, and looks at what they leave."""
        name, delay = rng.choice(sorted(self._pairs)), rng.uniform(0, 1.5)
        pair, place = self._pairs[name], folder / "place"
        place.mkdir()
        out = place / pair[0].name
        fault = f"two of {name}, {delay:.2f} s apart"
        processes = []
        for number in rng.sample((0, 1), 2):
            log = folder / f"{number}.txt"
            processes.append(Started(pair[number].words(out), log))
            time.sleep(delay * (len(processes) == 1))
        ends = [process.wait(_SECONDS) for process in processes]
        return self._judge(name, fault, out, ends)

    def _judge(
        self, name: str, fault: str, out: pathlib.Path, ends: list[Ended]
    ) -> Trial:
        """Decides on a trial by both ends and the result."""
        for ended in ends:
            if failure := ended.failure(fault):
                return failure
            if ended.status not in (0, 1):
                detail = f"status {ended.status}: {ended.last}"
                return Trial(fault, Outcome.SILENT, detail)
        refused = [ended for ended in ends if ended.status]
        if len(refused) == 2:
            detail = f"both were refused: {refused[0].last} {refused[1].last}"
            return Trial(fault, Outcome.SILENT, detail)
        if refused and out.name not in refused[0].last:
            return Trial(fault, Outcome.SILENT, refused[0].last)
        results = self._expected[name]

        def read() -> object:
            result = self._pairs[name][0].read(out)
            return results[0] if result in results else result

        trial = judge(fault, ["never"], read, results[0], _SECONDS)
        if refused and trial.outcome == Outcome.HARMLESS:
            return Trial(fault, Outcome.DETECTED, refused[0].last)
        return trial
