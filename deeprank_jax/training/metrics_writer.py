"""Logs of a run while it trains: metrics.jsonl, TensorBoard and the progress bar."""

from collections.abc import Mapping
import contextlib
import json
import pathlib
import sys
import time
from typing import Any

from tensorboardX import event_file_writer, summary
from tensorboardX.proto import event_pb2
import tqdm

from deeprank_jax import files
from deeprank_jax.training.workdir import Workdir


class MetricsWriter:
    """Appends scalars to `metrics.jsonl` and to TensorBoard's event files."""

    def __init__(self, workdir: str | pathlib.Path, *, first_step: int):
        """Opens the files of a run.

        Args:
          workdir: Folder of the run.
          first_step: Step that training starts from. Entries of later steps, which an
            earlier process wrote, are removed, so that a resumed run reads like one
            that never stopped.
        """
        entries = [x for x in read_metrics(workdir) if x["step"] <= first_step]
        path = Workdir(pathlib.Path(workdir)).metrics
        with files.replacing(path) as file:
            file.write("".join(json.dumps(x) + "\n" for x in entries).encode())
        self._file = path.open("a")
        # The plain events writer: SummaryWriter's thread dies silently on a full disk,
        # and the run then waits for it for ever.
        directory = Workdir(pathlib.Path(workdir)).tensorboard
        directory.mkdir(exist_ok=True)
        self._events = event_file_writer.EventsWriter(str(directory / "events"))
        # pyrefly: ignore[missing-attribute]
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write_event(first_step + 1, session_log=start)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes one line, and one point of each curve.

        Raises:
          OSError: The disk is full.
          ValueError: A value is not finite.
        """
        entry = {"step": step, **{name: float(x) for name, x in metrics.items()}}
        self._file.write(json.dumps(entry, allow_nan=False) + "\n")
        self._file.flush()
        for name, value in metrics.items():
            self._write_event(step, summary=summary.scalar(name, float(value)))
        self._events.flush()

    def close(self) -> None:
        """Closes the files, whose entries are written already."""
        for file in (self._file, self._events):
            # A full disk already raised an error in `write`.
            with contextlib.suppress(OSError):
                file.close()

    def _write_event(self, step: int, **content: Any) -> None:
        # pyrefly: ignore[missing-attribute]
        event = event_pb2.Event(wall_time=time.time(), step=step, **content)
        self._events.write_event(event)


class NoWriter(MetricsWriter):
    """Writes nothing, where another process writes the same."""

    def __init__(self):
        """Opens nothing."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes nothing."""

    def close(self) -> None:
        """Closes nothing."""


def read_metrics(workdir: str | pathlib.Path) -> list[dict[str, Any]]:
    """Returns the lines of `metrics.jsonl`, without one that was cut off in writing."""
    path = Workdir(pathlib.Path(workdir)).metrics
    if not path.exists():
        return []
    entries = []
    for line in path.read_text().splitlines():
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return entries


def progress_bar(
    total: int, *, initial: int, description: str, shown: bool = True
) -> tqdm.tqdm:
    """Returns a bar with rate and time left; in a log file it speaks twice a minute."""
    return tqdm.tqdm(
        total=total,
        initial=initial,
        desc=description,
        unit="step",
        dynamic_ncols=True,
        disable=not shown,
        mininterval=0.5 if sys.stderr.isatty() else 30.0,
    )
