"""Real processes of the command line, and how one of them ended."""

from collections.abc import Sequence
import contextlib
import dataclasses
import io
import math
import os
import pathlib
import signal
import subprocess
import sys
import time

from tools.faults import forked
from tools.faults.trial import TRACEBACK, Outcome, Trial

# Time that a process which has done its work has to end.
_END_SECONDS = 30.0
_ROOT = pathlib.Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Ended:
    """A process that has ended.

    Attributes:
      status: Exit status, negative after a signal; None if it had to be killed.
      stderr: Text that it wrote to standard error.
      seconds: Time that the end took.
    """

    status: int | None
    stderr: str
    seconds: float

    @property
    def last(self) -> str:
        """Returns the last line that it wrote."""
        lines = self.stderr.strip().splitlines()
        return lines[-1] if lines else ""

    def failure(self, fault: str) -> Trial | None:
        """Returns the trial if the process hung or ended by a traceback."""
        if self.status is None:
            return Trial(fault, Outcome.HUNG, self.last)
        if TRACEBACK in self.stderr:
            start = self.stderr.index(TRACEBACK)
            text = self.stderr[start:].strip().splitlines()
            return Trial(fault, Outcome.TRACEBACK, " | ".join(text[-6:])[-900:])
        return None


class Started:
    """A command in a process of its own."""

    def __init__(
        self,
        words: Sequence[str],
        log: pathlib.Path,
        *,
        limits: str = "",
        is_forked: bool = False,
    ):
        """Starts it.

        Args:
          words: Words of the command line, e.g. `["embed", "photos", ...]`.
          log: File for all that it writes.
          limits: Arguments of `ulimit` that the process gets, e.g. `"-f 64"`.
          is_forked: True to fork it from a process that has imported all.
        """
        _handle_signals()
        self.log = log
        self.process: forked.Forked | subprocess.Popen[bytes]
        if is_forked:
            log.touch()
            self.process = forked.Forked(words, log)
            return
        command = [sys.executable, "-m", "deeprank_jax.cli", *map(str, words)]
        if limits:
            command = ["bash", "-c", f'ulimit {limits}; exec "$@"', "bash", *command]
        with log.open("w") as file:
            self.process = subprocess.Popen(
                command, cwd=_ROOT, stdout=file, stderr=file, stdin=subprocess.DEVNULL
            )

    def wait(self, seconds: float) -> Ended:
        """Waits for the end, and kills the process if it does not come."""
        started = time.monotonic()
        try:
            status: int | None = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = None
            self.kill()
        stderr = self.log.read_text(errors="replace")
        return Ended(status, stderr, time.monotonic() - started)

    def kill(self) -> None:
        """Kills the process."""
        self.process.kill()
        self.process.wait()

    def processor_seconds(self) -> float:
        """Returns the processor's time that it has used; infinite once it has ended."""
        try:
            text = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text()
        except OSError:
            return math.inf
        fields = text.rpartition(")")[2].split()
        has_ended = fields[0] == "Z"
        ticks = int(fields[11]) + int(fields[12])
        return math.inf if has_ended else ticks / os.sysconf("SC_CLK_TCK")

    def work(self, seconds: float, limit: float) -> None:
        """Waits until the process has used that much of the processor's time, or ended.

        Unlike a time of the day, it names the same moment on a busy machine.

        Args:
          seconds: Processor's time.
          limit: Time to wait at most.
        """
        started = time.monotonic()
        while self.processor_seconds() < seconds:
            time.sleep(0.005)
            if time.monotonic() - started > limit:
                return


def run_alone(
    words: Sequence[str], log: pathlib.Path, seconds: float, *, is_forked: bool = False
) -> float:
    """Runs a command that has to end well, and returns the processor's time of it.

    Args:
      words: Words of the command line.
      log: File for all that it writes.
      seconds: Time that it may take.
      is_forked: True to fork it from a process that has imported all.

    Raises:
      RuntimeError: It ended otherwise; the message is its log.
    """
    started, used = Started(words, log, is_forked=is_forked), 0.0
    limit = time.monotonic() + seconds
    while math.isfinite(now := started.processor_seconds()):
        used = now
        time.sleep(0.05)
        if time.monotonic() > limit:
            break
    ended = started.wait(_END_SECONDS)
    if ended.status != 0:
        raise RuntimeError(ended.stderr)
    return used


def slowness() -> float:
    """Returns the number of processes for each processor, 1 at least."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def run_again(words: Sequence[str]) -> str:
    """Runs a command in this process, and returns the sentence it ends with, or ""."""
    from deeprank_jax.cli.__main__ import main

    handlers = {x: signal.getsignal(x) for x in (signal.SIGINT, signal.SIGTERM)}
    try:
        with contextlib.redirect_stdout(io.StringIO()), forked.plain_reports():
            main([*map(str, words)])
    except SystemExit as end:
        if end.code == 128 + signal.SIGINT:  # Not to the command: to the campaign.
            raise KeyboardInterrupt from end
        return "" if end.code in (None, 0) else str(end.code)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return ""


def share_programs(folder: pathlib.Path) -> None:
    """Lets the processes compile each program once.

    Args:
      folder: Folder for the compiled programs.
    """
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")


def _handle_signals() -> None:
    """Lets processes receive signals that this one, e.g. under `nohup`, ignores."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, lambda number, frame: sys.exit(128 + number))
