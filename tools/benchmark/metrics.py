"""Time and memory of the metrics of 50,000 embeddings, and of the exact search.

  python -m tools.benchmark metrics --torch_python=PATH --json=FILE

Compares with pytorch-metric-learning's AccuracyCalculator with FAISS on all cores, each
side in a process of its own, once: two to five minutes. Our MRR is over the whole
gallery, theirs over the R nearest. The exact search of a million rows is compared with
the peak of the machine.
"""

import json
import os
import subprocess
import sys
from typing import Any

from tools.benchmark.metrics_worker import NAMES

_ROWS, _GALLERY = 50_000, 10**6
_MODULES = {
    "ours": ["tools.benchmark.metrics_worker", "ours"],
    "theirs": ["tools.benchmark.metrics_worker", "theirs"],
    "exact": ["tools.benchmark.exact_search"],
}


def measure(torch_python: str) -> dict[str, float]:
    """Returns the ratio of our time to theirs, and its parts.

    Args:
      torch_python: Python of an environment with pytorch-metric-learning.
    """
    ours = ask(sys.executable, "ours", _ROWS)
    theirs = ask(torch_python, "theirs", _ROWS)
    print(f"{'':<12}{'ours':>10}{'theirs':>10}")
    for theirs_name, name in NAMES.items():
        values = ours["values"][name], theirs["values"][theirs_name]
        print(f"{name:<12}{values[0]:>10.4f}{values[1]:>10.4f}")
    return {
        "metrics_time_ratio": ours["seconds"] / theirs["seconds"],
        "metrics_seconds": ours["seconds"],
        "metrics_seconds_torch": theirs["seconds"],
        "metrics_extra_mib": ours["extra_mib"],
        "metrics_extra_mib_torch": theirs["extra_mib"],
        **ask(sys.executable, "exact", _GALLERY),
    }


def ask(python: str, side: str, num_rows: int) -> dict[str, Any]:
    """Returns the measurements of one side.

    Args:
      python: Python of the side's environment.
      side: Name of the side in `_MODULES`.
      num_rows: Number of rows to measure on.

    Raises:
      RuntimeError: The side has failed; its message is above.
    """
    # Other benchmarks use one core; this one uses all.
    hidden = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    process = subprocess.run(
        [python, "-m", *_MODULES[side], str(num_rows)],
        env={k: v for k, v in os.environ.items() if k not in hidden},
        stdout=subprocess.PIPE,
        text=True,
    )
    if process.returncode:
        raise RuntimeError(
            f"The process that measures {side} has ended; its message is above. "
            "Install pytorch-metric-learning by requirements-bench.txt, perhaps in "
            "another environment: --torch_python=PATH."
        )
    return json.loads(process.stdout.splitlines()[-1])
