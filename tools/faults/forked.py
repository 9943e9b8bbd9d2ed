"""Commands in processes that are forked from one which has imported all they need.

Python and its imports take longer than the work that is struck. Only the pictures of
the report, which no trial compares, are left out.
"""

from collections.abc import Iterator, Sequence
import contextlib
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
from unittest import mock

_IMPORTED = ["tools.faults.forked", "deeprank_jax.training.loop"]


class Forked:
    """A command in a forked process, with the methods of `subprocess.Popen`."""

    def __init__(self, words: Sequence[str], log: pathlib.Path):
        """Starts it.

        Args:
          words: Words of the command line.
          log: File for all that it writes.
        """
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_IMPORTED)
        self._process = context.Process(target=_run, args=([*map(str, words)], log))
        self._process.start()

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid or 0

    def poll(self) -> int | None:
        """Returns the exit status; None if it has not ended."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Returns the exit status once it has ended.

        Raises:
          subprocess.TimeoutExpired: It has not ended in that time.
        """
        self._process.join(timeout)
        if (status := self._process.exitcode) is None:
            raise subprocess.TimeoutExpired("deeprank", timeout or 0.0)
        return status

    def send_signal(self, number: int) -> None:
        """Sends a signal, if it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kills the process."""
        self._process.kill()


@contextlib.contextmanager
def plain_reports() -> Iterator[None]:
    """Leaves out the charts and the map of reports, two thirds of a trial's work."""
    from deeprank_jax.report import curves, embedding_map

    with (
        mock.patch.object(curves, "create_charts", return_value=[]),
        mock.patch.object(embedding_map, "create_map", return_value=None),
    ):
        yield


def _run(words: list[str], log: pathlib.Path) -> None:
    """Runs a command in the forked process."""
    from deeprank_jax.cli.__main__ import main

    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    sys.argv = ["deeprank", *words]
    with plain_reports():
        main()
