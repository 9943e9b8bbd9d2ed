"""Processes that a command starts, and that end with it.

Each is in a process group of its own: Ctrl-C in the terminal reaches the command, which
ends them, and not both.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
import contextlib
import os
import signal
import subprocess
import threading
import time
from typing import IO

# Time that a process has to save and end.
_SAVE_SECONDS = 8.0

# Time until a killed process is gone, e.g. after its writes to a disk.
_KILL_SECONDS = 1.0

_POLL_SECONDS = 0.1

_running: set[subprocess.Popen[str]] = set()
_ending: list[float] = []


def run(
    command: Sequence[str],
    *,
    log: IO[str] | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end; an exception, e.g. on a signal, ends it.

    Args:
      command: Words of the command.
      log: File that its output is written to; None to return it.
      env: Environment variables; None for those of this process.

    Raises:
      OSError: It cannot be started.
    """
    starts = _Starts()
    # A signal raises in the main thread, and never while a process is being started.
    with futures.ThreadPoolExecutor(1) as pool:
        try:
            return pool.submit(_run, command, starts, log, env).result()
        except BaseException:
            starts.forbid()
            _end(lambda: {x for x in starts.processes if x.poll() is None})
            raise


class _Starts:
    """The process that a thread has started, until further starts are forbidden."""

    def __init__(self) -> None:
        self.processes: list[subprocess.Popen[str]] = []
        self._is_forbidden = False
        self._lock = threading.Lock()

    def start(
        self, command: Sequence[str], log: IO[str] | None, env: Mapping[str, str] | None
    ) -> subprocess.Popen[str]:
        """Returns a process that runs a command.

        Raises:
          InterruptedError: Starts are forbidden.
          OSError: It cannot be started.
        """
        output = subprocess.PIPE if log is None else log
        with self._lock:
            if self._is_forbidden:
                raise InterruptedError
            process = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                text=True,
                env=env,
                process_group=0,
            )
            _running.add(process)
            self.processes.append(process)
        return process

    def forbid(self) -> None:
        """Forbids further starts, after the end of one that is under way."""
        with self._lock:
            self._is_forbidden = True


def _run(
    command: Sequence[str],
    starts: _Starts,
    log: IO[str] | None,
    env: Mapping[str, str] | None,
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end."""
    process = starts.start(command, log, env)
    try:
        stdout, stderr = process.communicate()
    finally:
        _running.discard(process)
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def end_all() -> None:
    """Lets all processes save and end, and kills those that take too long."""
    _end(lambda: set(_running))


def are_ending() -> bool:
    """Returns whether processes are given the time to save and end."""
    return bool(_ending)


def _end(list_running: Callable[[], set[subprocess.Popen[str]]]) -> None:
    """Lets processes save and end, and kills those that take too long.

    Args:
      list_running: Function that returns those which are still running.
    """
    stopped: set[subprocess.Popen[str]] = set()
    limit = time.monotonic() + _SAVE_SECONDS
    _ending.append(limit)
    try:
        while (running := list_running()) and time.monotonic() < limit:
            for process in running - stopped:
                _send(process, signal.SIGTERM)
                stopped.add(process)
            time.sleep(_POLL_SECONDS)
        for process in list_running():
            _send(process, signal.SIGKILL)
    finally:
        _ending.pop()


def kill_all() -> None:
    """Ends all processes at once, with those that they have started."""
    killed = list(_running)
    for process in killed:
        _send(process, signal.SIGKILL)
    for process in killed:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_KILL_SECONDS)


def _send(process: subprocess.Popen[str], number: signal.Signals) -> None:
    # Of a process that has ended, another may have the number by now.
    if process.poll() is None:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, number)
