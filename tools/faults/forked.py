"""Commands in processes that are forked from one which has imported all they need.

Python and its imports take longer than the little work of a trial or a test. The
pictures of reports, which no trial compares, are left out unless they are asked for.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import dataclasses
import gc
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
from unittest import mock

_IMPORTED = [
    "tools.faults.forked",
    "deeprank_jax.training.loop",
    "deeprank_jax.cli.__main__",
    "sklearn.manifold",
]


@dataclasses.dataclass(frozen=True)
class _Place:
    """What surrounds a command: the files that it writes to, folder and environment."""

    output: pathlib.Path
    errors: pathlib.Path
    folder: pathlib.Path
    environment: dict[str, str]

    def enter(self) -> None:
        """Makes it that of this process, which JAX has not been used in."""
        import jax

        for number, path in ((1, self.output), (2, self.errors)):
            with path.open("a") as file:
                os.dup2(file.fileno(), number)
        os.chdir(self.folder)
        os.environ.clear()
        os.environ.update(self.environment)
        # JAX has read its variables when it was imported.
        if number := self.environment.get("JAX_NUM_CPU_DEVICES"):
            jax.config.update("jax_num_cpu_devices", int(number))


class Forked:
    """A command in a forked process, with the methods of `subprocess.Popen`."""

    def __init__(
        self,
        words: Sequence[str],
        log: pathlib.Path,
        *,
        errors: pathlib.Path | None = None,
        folder: pathlib.Path | None = None,
        environment: Mapping[str, str] | None = None,
        has_pictures: bool = False,
    ):
        """Starts it.

        Args:
          words: Words of the command line.
          log: File for all that it writes.
          errors: File for what it writes to standard error; None for `log`.
          folder: Folder to run in; None for this process's.
          environment: Variables of the environment; None for this process's.
          has_pictures: True to draw the charts and the map of reports.
        """
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_IMPORTED)
        where = _Place(
            log,
            errors or log,
            folder or pathlib.Path.cwd(),
            dict(os.environ if environment is None else environment),
        )
        self._process = context.Process(
            target=_run, args=([*map(str, words)], where, has_pictures)
        )
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


def _run(words: list[str], place: _Place, has_pictures: bool) -> None:
    """Runs a command in the forked process."""
    from deeprank_jax.cli.__main__ import main

    # What was imported is no garbage, and little else is: tracing programs makes many
    # objects, which Python would search several times.
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    place.enter()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    sys.argv = ["deeprank", *words]
    with contextlib.nullcontext() if has_pictures else plain_reports():
        main()
