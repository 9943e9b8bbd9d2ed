"""Commands in processes of their own that do not import everything anew.

A process is forked from one that has imported JAX, which saves two of a test's seconds.
Tests of how a process starts use `subprocess`.
"""

from collections.abc import Mapping, Sequence
import pathlib
import subprocess
import tempfile

from tools.faults.forked import Forked


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
