"""Logs of a run while it trains: metrics.jsonl, TensorBoard and the progress bar."""

from collections.abc import Mapping, Sequence
import contextlib
import hashlib
import json
import pathlib
import time
from typing import Any

from absl import logging
from tensorboardX import event_file_writer, summary
from tensorboardX.proto import event_pb2

from deeprank_jax import files
from deeprank_jax.progress import Bar, Progress
from deeprank_jax.training.workdir import Workdir


class MetricsWriter:
    """Appends scalars to `metrics.jsonl` and to TensorBoard's event files."""

    def __init__(
        self,
        workdir: str | pathlib.Path,
        *,
        first_step: int,
        checksum: str | None = None,
    ):
        """Opens the files of a run.

        Args:
          workdir: Folder of the run.
          first_step: Step that training starts from. Entries of later steps, which an
            earlier process wrote, are removed, so that a resumed run reads like one
            that never stopped.
          checksum: Checksum of the other entries, from when they were written; None if
            it is not known.
        """
        entries = [x for x in read_metrics(workdir) if x["step"] <= first_step]
        lines = [f"{json.dumps(x)}\n".encode() for x in entries]
        num_unsaved = _count_unsaved(lines, checksum)
        if num_unsaved and entries[-num_unsaved]["step"] == first_step:
            del lines[-num_unsaved:]
        text = b"".join(lines)
        path = Workdir(pathlib.Path(workdir)).metrics
        self._digest = hashlib.sha256(text)
        if checksum not in (None, self.checksum):
            logging.warning(
                "%s has changed since step %d was saved: curves of the report up to "
                "there may be wrong; training goes on as if it had not.",
                path,
                first_step,
            )
        with files.replacing(path) as file:
            file.write(text)
        self._file = path.open("a")
        # The plain events writer: SummaryWriter's thread dies silently on a full disk,
        # and the run then waits for it for ever.
        directory = Workdir(pathlib.Path(workdir)).tensorboard
        directory.mkdir(exist_ok=True)
        self._events = event_file_writer.EventsWriter(str(directory / "events"))
        # pyrefly: ignore[missing-attribute]
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write_event(first_step + 1, session_log=start)

    @property
    def checksum(self) -> str:
        """Returns the checksum of all entries so far."""
        return self._digest.hexdigest()

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes one line, and one point of each curve.

        Raises:
          OSError: The disk is full.
          ValueError: A value is not finite.
        """
        entry = {"step": step, **{name: float(x) for name, x in metrics.items()}}
        line = json.dumps(entry, allow_nan=False) + "\n"
        self._file.write(line)
        self._file.flush()
        self._digest.update(line.encode())
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


def _count_unsaved(lines: Sequence[bytes], checksum: str | None) -> int:
    """Returns the number of lines after those with a checksum, 0 if there is none.

    A validation is written before the checkpoint that it belongs to.
    """
    digest, num_saved = hashlib.sha256(), 0
    for number, line in enumerate(lines, 1):
        digest.update(line)
        if digest.hexdigest() == checksum:
            num_saved = number
    return len(lines) - num_saved if num_saved else 0


class NoWriter(MetricsWriter):
    """Writes nothing, where another process writes the same."""

    def __init__(self):
        """Opens nothing."""
        self._digest = hashlib.sha256()

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
    for line in files.read_text(path, errors="replace").splitlines():
        try:
            entry = files.parse_json(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and isinstance(entry.get("step"), int):
            entries.append(entry)
    return entries


class ProgressBar(Bar):
    """A bar that also reports to a function."""

    def __init__(self, *, progress: Progress | None = None, **options: Any):
        """Creates the bar.

        Args:
          progress: Function that receives the progress; None for no reports.
          **options: Options of `Bar`.
        """
        super().__init__(**options)
        self._progress = progress
        self._done, self._steps = options["initial"], options["total"]
        self._description = options["desc"]

    def update(self, n: float | None = 1) -> bool | None:
        """Advances by a number of steps."""
        self._done += int(n or 0)
        if self._progress is not None:
            self._progress(self._done, self._steps, self._description)
        return super().update(n)


def progress_bar(
    total: int,
    *,
    initial: int,
    description: str,
    shown: bool = True,
    progress: Progress | None = None,
) -> ProgressBar:
    """Returns a bar with rate and time left.

    Args:
      total: Number of steps.
      initial: Number of steps that are done.
      description: Description of the bar.
      shown: True to show the bar.
      progress: Function that receives the progress, in place of the bar.
    """
    return ProgressBar(
        progress=progress,
        total=total,
        initial=initial,
        desc=description,
        unit="step",
        shown=shown and progress is None,
        mininterval=0.5,
    )
