"""What `tools.benchmark step` measures, and how two sides take turns at it.

Each side is a process of its own that reads the name of a case and how often to run
it, line by line, and answers with seconds: so that neither's threads are in the
other's way, and PyTorch may be in another environment.
"""

from collections.abc import Callable
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any, Self

_PATH = {
    "subsample": 3, "kernel": 8, "stride": 4, "width": 32, "pool": 3, "pool_stride": 2,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Case:
    """A network and a batch.

    Attributes:
      trunk: its name.
      size: of the images, in pixels.
      batch_size: triplets of a step, or images of a forward pass.
      trains: whether a train step is measured, else a forward pass.
      embedding_dim: of the network.
      paths: its low-resolution paths.
    """

    trunk: str
    size: int
    batch_size: int
    trains: bool
    embedding_dim: int = 512
    paths: tuple[dict[str, int], ...] = ()


# The demo's network, batch and size; the others as large as two cores take.
CASES = {
    "step_convnet": Case("convnet", 48, 64, True, paths=(_PATH,)),
    "step_resnet50": Case("resnet50", 64, 16, True),
    "forward_convnet": Case("convnet", 48, 256, False, paths=(_PATH,)),
    "forward_resnet50": Case("resnet50", 64, 64, False),
    "forward_lite0": Case("efficientnet_lite0", 96, 64, False),
}
# AdamW, as in the demo.
LEARNING_RATE, WEIGHT_DECAY, MARGIN = 3e-3, 0.2, 0.2


class Side:
    """One of the two processes."""

    def __init__(self, python: str, module: str):
        """Starts `python -m module`."""
        # One core for what is counted elsewhere; here all of them.
        hidden = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        env = {k: v for k, v in os.environ.items() if k not in hidden}
        self._process = subprocess.Popen(
            [python, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
        )

    def __enter__(self) -> Self:
        """Takes over the process."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends it."""
        self._process.terminate()
        self._process.communicate()  # Closes the pipes and waits.

    def ask(self, name: str, repeats: int) -> dict[str, Any]:
        """Returns what the process answers; `seconds` is a list."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{name} {repeats}\n")
        self._process.stdin.flush()
        if not (line := self._process.stdout.readline()):
            raise RuntimeError(
                f"The process that measures {name} has ended; its message is above. "
                "PyTorch is installed by requirements-bench.txt, and may be in another "
                "environment: --torch_python=PATH."
            )
        return json.loads(line)


def serve(prepare: Callable[[str], Callable[[], Any]]) -> None:
    """Answers on standard output, for one side.

    Args:
      prepare: maps a case's name to a function that runs it once and waits for it.
    """
    prepared: dict[str, Callable[[], Any]] = {}
    for line in sys.stdin:
        name, repeats = line.split()
        if name not in prepared:
            prepared.clear()  # One network in memory at a time.
            prepared[name] = prepare(name)
            prepared[name]()
        seconds = []
        for _ in range(int(repeats)):
            start = time.perf_counter()
            prepared[name]()
            seconds.append(time.perf_counter() - start)
        print(json.dumps({"seconds": seconds}), flush=True)


def take_turns(
    ours: Side, theirs: Side, name: str, *, rounds: int = 7, seconds: float = 2.0
) -> tuple[float, float]:
    """Returns the median seconds of both sides, measured in alternating runs.

    Args:
      ours: one side.
      theirs: the other.
      name: of the case.
      rounds: how often each is asked.
      seconds: how long each runs in a round, about.
    """
    # The first answer is slow still, from caches that fill.
    once = max(
        statistics.median(side.ask(name, 3)["seconds"]) for side in (ours, theirs)
    )
    repeats = max(1, round(seconds / once))
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for side, times in zip((ours, theirs), found, strict=True):
            times.append(statistics.median(side.ask(name, repeats)["seconds"]))
    return statistics.median(found[0]), statistics.median(found[1])
