"""Commands in processes of their own that do not import everything anew.

A process is forked from one that has imported JAX, which saves two of a test's seconds.
Tests of how a process starts use `subprocess`.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import pathlib
import subprocess
import tempfile
from typing import IO
from unittest import mock

from deeprank_jax.distributed import children
from tools.faults.forked import Forked

_TRAIN = "deeprank_jax.main"


def run_command(
    words: Sequence[object],
    *,
    folder: pathlib.Path | None = None,
    environment: Mapping[str, str] | None = None,
    has_pictures: bool = False,
    timeout: float = 300.0,
) -> subprocess.CompletedProcess[str]:
    """Runs `deeprank` with these words, as `subprocess.run` would.

    Args:
      words: Words of the command line after `deeprank`.
      folder: Folder to run in; None for this process's.
      environment: Variables of the environment; None for this process's.
      has_pictures: True to draw the charts and the map of reports.
      timeout: Seconds that it may take.

    Returns:
      Its status and what it wrote.

    Raises:
      subprocess.TimeoutExpired: It took longer, and was killed.
    """
    words = [*map(str, words)]
    with tempfile.TemporaryDirectory() as place:
        output, errors = pathlib.Path(place, "output"), pathlib.Path(place, "errors")
        process = Forked(
            words, output, errors=errors, folder=folder, environment=environment,
            has_pictures=has_pictures,
        )  # fmt: skip
        try:
            status = process.wait(timeout)
        finally:
            process.kill()
        told = [path.read_text(errors="replace") for path in (output, errors)]
    return subprocess.CompletedProcess(["deeprank", *words], status, *told)


@contextlib.contextmanager
def forked_runs() -> Iterator[None]:
    """Forks the runs of experiments that this process does."""
    run = children.run

    def run_forked(
        command: Sequence[str], *, log: IO[str] | None = None, **options
    ) -> subprocess.CompletedProcess[str]:
        if log is None or _TRAIN not in command:
            return run(command, log=log, **options)
        words = command[command.index(_TRAIN) + 1 :]
        process = Forked(["train", *words], pathlib.Path(log.name))
        try:
            return subprocess.CompletedProcess(command, process.wait(300.0))
        finally:
            process.kill()

    with mock.patch.object(children, "run", run_forked):
        yield
