"""Cases of `tools.benchmark step`, and the turns of its two sides.

Each side is a process of its own that reads lines with the name of a case and a number
of runs, and answers with seconds. So the threads of the sides do not compete, and
PyTorch may be in another environment.
"""

from collections.abc import Callable
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Self

_PATH = {
    "subsample": 3, "kernel": 8, "stride": 4, "width": 32, "pool": 3, "pool_stride": 2,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Case:
    """A network and a batch.

    Attributes:
      trunk: Name of the trunk.
      size: Size of the images in pixels.
      batch_size: Number of triplets of a step, or of images of a forward pass.
      trains: True for a train step, False for a forward pass.
      embedding_dim: Dimension of the embeddings.
      paths: Low-resolution paths of the network.
    """

    trunk: str
    size: int
    batch_size: int
    trains: bool
    embedding_dim: int = 512
    paths: tuple[dict[str, int], ...] = ()


# The demo's network, batch and size; the others as large as two cores allow.
CASES = {
    "step_convnet": Case("convnet", 48, 64, True, paths=(_PATH,)),
    "step_resnet50": Case("resnet50", 64, 16, True),
    "forward_convnet": Case("convnet", 48, 256, False, paths=(_PATH,)),
    "forward_resnet50": Case("resnet50", 64, 64, False),
    "forward_lite0": Case("efficientnet_lite0", 96, 64, False),
}
# Options of AdamW as in the demo.
LEARNING_RATE, WEIGHT_DECAY, MARGIN = 3e-3, 0.2, 0.2


class Side:
    """Process of one side."""

    def __init__(self, python: str, module: str):
        """Starts `python -m module`."""
        # Other benchmarks use one core; this one uses all.
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
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the process."""
        self._process.terminate()
        self._process.communicate()  # Closes the pipes and waits.

    def ask(self, name: str, repeats: int) -> dict[str, list[float]]:
        """Returns the answer of the process; `seconds` is a list."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{name} {repeats}\n")
        self._process.stdin.flush()
        if not (line := self._process.stdout.readline()):
            raise RuntimeError(
                f"The process that measures {name} has ended; its message is above. "
                "Install PyTorch by requirements-bench.txt, perhaps in another "
                "environment: --torch_python=PATH."
            )
        return json.loads(line)


def serve(prepare: Callable[[str], Callable[[], object]]) -> None:
    """Answers requests on standard input, for one side.

    Args:
      prepare: Function from a case's name to a function that runs the case once and
        waits for the result.
    """
    prepared: dict[str, Callable[[], object]] = {}
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
    """Returns the median seconds of both sides in alternating runs.

    Args:
      ours: First side.
      theirs: Second side.
      name: Name of the case.
      rounds: Number of turns of each side.
      seconds: Approximate time of a turn.
    """
    # The first answer is slower, while caches fill.
    once = max(
        statistics.median(side.ask(name, 3)["seconds"]) for side in (ours, theirs)
    )
    repeats = max(1, round(seconds / once))
    medians: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for side, times in zip((ours, theirs), medians, strict=True):
            times.append(statistics.median(side.ask(name, repeats)["seconds"]))
    return statistics.median(medians[0]), statistics.median(medians[1])
