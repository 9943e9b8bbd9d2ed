"""How long do the metrics of 50,000 embeddings take, and how much memory?

  python -m tools.benchmark metrics --torch_python=PATH --json=FILE

Beside pytorch-metric-learning's AccuracyCalculator with FAISS, on the same cores, all
of them, each side in a process of its own, once: two to five minutes. MRR is ours in
the whole gallery, theirs in the R nearest. And how near to the machine's own peak the
exact search of a million rows comes, in how much memory.
"""

import json
import os
import subprocess
import sys
from typing import Any

from absl import flags

from tools.benchmark import step as step_lib  # noqa: F401  It defines --torch_python.
from tools.benchmark.metrics_worker import NAMES

_ROWS, _GALLERY = 50_000, 10**6
_MODULES = {
    "ours": ["tools.benchmark.metrics_worker", "ours"],
    "theirs": ["tools.benchmark.metrics_worker", "theirs"],
    "exact": ["tools.benchmark.exact_search"],
}


def measure() -> dict[str, float]:
    """Returns the ratio, ours by theirs, and what is behind it."""
    ours = ask(sys.executable, "ours", _ROWS)
    theirs = ask(str(flags.FLAGS["torch_python"].value), "theirs", _ROWS)
    print(f"{'':<12}{'ours':>10}{'theirs':>10}")
    for name, own in NAMES.items():
        print(f"{own:<12}{ours['values'][own]:>10.4f}{theirs['values'][name]:>10.4f}")
    return {
        "metrics_time_ratio": ours["seconds"] / theirs["seconds"],
        "metrics_seconds": ours["seconds"],
        "metrics_seconds_torch": theirs["seconds"],
        "metrics_extra_mib": ours["extra_mib"],
        "metrics_extra_mib_torch": theirs["extra_mib"],
        **ask(sys.executable, "exact", _GALLERY),
    }


def ask(python: str, side: str, num_rows: int) -> dict[str, Any]:
    """Returns what one side measures.

    Args:
      python: of the side's environment.
      side: of `_MODULES`.
      num_rows: what it measures on.

    Raises:
      RuntimeError: the side has failed; its message is above.
    """
    # One core for what is counted elsewhere; here all of them.
    hidden = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    done = subprocess.run(
        [python, "-m", *_MODULES[side], str(num_rows)],
        env={k: v for k, v in os.environ.items() if k not in hidden},
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(
            f"The process that measures {side} has ended; its message is above. "
            "pytorch-metric-learning is installed by requirements-bench.txt, and may "
            "be in another environment: --torch_python=PATH."
        )
    return json.loads(done.stdout.splitlines()[-1])
