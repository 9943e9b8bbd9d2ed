"""Jobs of two training processes, one of which is killed, stopped or told to end."""

from collections.abc import Callable, Mapping
import os
import pathlib
import random
import signal
import socket
import time

from tools.faults.commands import create_commands
from tools.faults.processes import Ended, Started, share_programs, slowness
from tools.faults.samples import Samples
from tools.faults.trial import Outcome, Trial, judge

# Time for a whole job; for the end after a death, and after a signal, as
# docs/hosts.md has them, with the time that a compilation may hold up the latter.
_SECONDS, _GONE_SECONDS, _SIGNAL_SECONDS = 600.0, 30.0, 15.0
_SIGNALS = (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGINT)
# Delay after the sign of a moment, on a machine that does nothing else.
_DELAY_SECONDS = 0.5
_POLL_SECONDS = 0.005
_NUM = 2


class TwoProcesses:
    """A signal to one of two processes, from their rendezvous to the report.

    The other one must end in time, by a sentence that names the process, and leave no
    scratch file after a signal; the job that is started again must end with the same
    bits as one that was never disturbed.
    """

    def prepare(self, samples: Samples, folder: pathlib.Path) -> None:
        """Runs a job to its end."""
        share_programs(samples.folder / "programs")
        folder.mkdir()
        self._command = create_commands(samples, samples.images)["train"]
        self._expected = self._run_whole(folder / "run", folder)

    def run(self, folder: pathlib.Path, rng: random.Random) -> Trial:
        """Sends a signal to one process at a moment, and starts the job again."""
        workdir = folder / "run"
        number, victim = rng.choice(_SIGNALS), rng.randrange(_NUM)
        moment = rng.choice(sorted(_MOMENTS))
        job = self._start(workdir, folder)
        limit = time.monotonic() + _SECONDS * slowness()
        has_come = _MOMENTS[moment]
        while not has_come(job, workdir) and _is_running(job):
            time.sleep(_POLL_SECONDS)
            if time.monotonic() > limit:
                break
        time.sleep(rng.uniform(0, _DELAY_SECONDS) * slowness())
        job[victim].process.send_signal(number)
        fault = f"{number.name} to process {victim} at the moment {moment!r}"
        is_death = number in (signal.SIGKILL, signal.SIGSTOP)
        seconds = (_GONE_SECONDS if is_death else _SIGNAL_SECONDS) * slowness()
        other = job[1 - victim].wait(seconds)
        fault += f", which ended process {1 - victim} {other.seconds:.1f} s later"
        if is_death:
            job[victim].kill()
            failure = _judge_death(fault, victim, other)
        else:
            ends = [other, job[victim].wait(seconds)]
            failure = _judge_signal(fault, number, ends, workdir)
        for process in job:
            process.kill()
        return failure or self._judge_again(fault, workdir, folder, other)

    def _judge_again(
        self, fault: str, workdir: pathlib.Path, folder: pathlib.Path, other: Ended
    ) -> Trial:
        """Starts the job again, and compares its end."""
        read = lambda: self._run_whole(workdir, folder)
        seconds = 2 * _SECONDS * slowness()
        trial = judge(fault, ["never"], read, self._expected, seconds)
        if trial.outcome == Outcome.HARMLESS and (left := _list_scratch(workdir)):
            return Trial(fault, Outcome.SILENT, f"left {', '.join(left)}")
        if trial.outcome == Outcome.HARMLESS and other.status:
            return Trial(fault, Outcome.DETECTED, other.last)
        return trial

    def _start(self, workdir: pathlib.Path, folder: pathlib.Path) -> list[Started]:
        with socket.socket() as opened:
            opened.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{opened.getsockname()[1]}"
        words = [
            *self._command.words(workdir),
            f"--coordinator_address={address}",
            f"--num_processes={_NUM}",
        ]
        return [
            Started([*words, f"--process_id={i}"], folder / f"{i}.txt", is_forked=True)
            for i in range(_NUM)
        ]

    def _run_whole(self, workdir: pathlib.Path, folder: pathlib.Path) -> object:
        """Runs a job to its end, and returns its result or the sentence of a failure.

        Raises:
          RuntimeError: A process ended by a traceback, or not in time.
        """
        job = self._start(workdir, folder)
        ends = [process.wait(_SECONDS * slowness()) for process in job]
        for process in job:
            process.kill()
        for ended in ends:
            if failure := ended.failure("the undisturbed job"):
                raise RuntimeError(f"{failure.outcome}: {failure.detail}")
            if ended.status:
                return ended.last
        return self._command.read(workdir)


def _judge_death(fault: str, victim: int, other: Ended) -> Trial | None:
    """Returns a failure if the other process has not ended as it should."""
    if failure := other.failure(fault):
        return failure
    sentence = f"process {victim} of {_NUM} is gone"
    if other.status == 0 or (other.status == 1 and sentence in other.stderr):
        return None
    return Trial(fault, Outcome.SILENT, f"status {other.status}: {other.last}")


def _judge_signal(
    fault: str, number: signal.Signals, ends: list[Ended], workdir: pathlib.Path
) -> Trial | None:
    """Returns a failure if one of the processes has not ended as it should."""
    for ended in ends:
        if failure := ended.failure(fault):
            return failure
        if ended.status not in (0, 128 + number, -number):
            detail = f"status {ended.status}: {ended.last}"
            return Trial(fault, Outcome.SILENT, detail)
        if ended.status == 128 + number and number.name not in ended.stderr:
            return Trial(fault, Outcome.SILENT, f"no sentence: {ended.last}")
    if left := _list_scratch(workdir):
        return Trial(fault, Outcome.SILENT, f"left {', '.join(left)}")
    return None


def _list_scratch(workdir: pathlib.Path) -> list[str]:
    """Returns the names of scratch files, which begin with a dot or end in tmp."""
    paths = [*workdir.rglob(".*"), *workdir.rglob("*tmp*")]
    return sorted(path.relative_to(workdir).as_posix() for path in paths)


def _is_running(job: list[Started]) -> bool:
    return all(process.process.poll() is None for process in job)


def _has_socket(process: Started) -> bool:
    """Returns whether a process listens, or is connected."""
    folder = f"/proc/{process.process.pid}/fd"
    try:
        links = [os.readlink(f"{folder}/{name}") for name in os.listdir(folder)]
    except OSError:  # One was just closed.
        return False
    return any(link.startswith("socket:") for link in links)


def _says(job: list[Started], text: str) -> bool:
    """Returns whether process 0, which shows the bars, has written a text."""
    return text in job[0].log.read_text(errors="replace")


# Signs of the moments in a job's life.
_MOMENTS: Mapping[str, Callable[[list[Started], pathlib.Path], bool]] = {
    "joining": lambda job, workdir: all(map(_has_socket, job)),
    "compilation": lambda job, workdir: (workdir / "lock").exists(),
    "training": lambda job, workdir: (workdir / "metrics.jsonl").exists(),
    "saving": lambda job, workdir: any((workdir / "checkpoints").glob("[0-9]*")),
    "validation": lambda job, workdir: _says(job, "validation:"),
    "report": lambda job, workdir: _says(job, "whitening:"),
}
