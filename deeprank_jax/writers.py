"""What a run writes while it trains: metrics.jsonl, TensorBoard, the progress bar."""

from collections.abc import Mapping
import json
import pathlib
import sys
from typing import Any

import tensorboardX
import tqdm


class MetricsWriter:
    """Appends scalars to `metrics.jsonl` and to TensorBoard's event files."""

    def __init__(self, workdir: str | pathlib.Path, *, first_step: int):
        """Opens the files of a run.

        Args:
          workdir: where they lie.
          first_step: the step that training starts from. What an earlier process wrote
            for later steps is taken out, so that a resumed run reads like one that
            never stopped.
        """
        self._path = pathlib.Path(workdir) / "metrics.jsonl"
        kept = [entry for entry in read_metrics(workdir) if entry["step"] <= first_step]
        scratch = self._path.with_suffix(".tmp")
        scratch.write_text("".join(json.dumps(entry) + "\n" for entry in kept))
        scratch.replace(self._path)
        self._file = self._path.open("a")
        self._tensorboard = tensorboardX.SummaryWriter(
            str(pathlib.Path(workdir) / "tensorboard"), purge_step=first_step + 1
        )

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes one line, and one point of each curve."""
        entry = {"step": step, **{name: float(x) for name, x in metrics.items()}}
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()
        for name, value in metrics.items():
            self._tensorboard.add_scalar(name, float(value), step)

    def close(self) -> None:
        """Writes out what is buffered."""
        self._file.close()
        self._tensorboard.close()


def read_metrics(workdir: str | pathlib.Path) -> list[dict[str, Any]]:
    """Returns the lines of `metrics.jsonl`, without one that was cut off in writing."""
    path = pathlib.Path(workdir) / "metrics.jsonl"
    if not path.exists():
        return []
    entries = []
    for line in path.read_text().splitlines():
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return entries


def progress_bar(total: int, *, initial: int, description: str) -> tqdm.tqdm:
    """Returns a bar with rate and time left; in a log file it speaks twice a minute."""
    return tqdm.tqdm(
        total=total,
        initial=initial,
        desc=description,
        unit="step",
        dynamic_ncols=True,
        mininterval=0.5 if sys.stderr.isatty() else 30.0,
    )
