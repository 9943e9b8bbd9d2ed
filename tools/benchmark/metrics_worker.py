"""One side of `tools.benchmark metrics`: `python -m tools.benchmark.metrics_worker SIDE N`.

SIDE is "ours", or "theirs" in an environment with pytorch-metric-learning. Measures
N rows once, in a process that has done nothing else, and prints one JSON object.
"""

from collections.abc import Callable
import json
import pathlib
import sys
import time

import numpy as np

DIM, PER_CLASS, NOISE = 128, 7, 1.0
# Theirs, all that is measured by default but mean_average_precision, which with
# "max_bin_count" does not go beyond rank R either.
NAMES = {
    "precision_at_1": "recall@1",
    "r_precision": "r_precision",
    "mean_average_precision_at_r": "map@r",
    "mean_reciprocal_rank": "mrr",
    "NMI": "nmi",
    "AMI": "ami",
}


def create_split(num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns rows `[N, 128]` float32 in clusters of seven, and their classes `[N]`."""
    rng = np.random.default_rng(0)
    classes = rng.permutation(num_rows) // PER_CLASS
    centers = rng.standard_normal((classes.max() + 1, DIM), np.float32)
    noise = rng.standard_normal((num_rows, DIM), np.float32)
    return centers[classes] + np.float32(NOISE) * noise, classes


def prepare_ours(rows: np.ndarray, classes: np.ndarray) -> Callable[[], dict]:
    """Returns what measures by this package, the seconds of its compiler included."""
    from deeprank_jax.distributed import backend

    backend.configure_backend()
    from deeprank_jax import evaluation, relevance

    def measure() -> dict[str, float]:
        labels = classes[:, None]
        retrieval = evaluation.Retrieval(labels, relevance.SameClass(), ks=(1,))
        clustering = evaluation.Clustering(labels)
        return {**dict(retrieval.run(rows)), **dict(clustering.run(rows))}

    return measure


def prepare_theirs(rows: np.ndarray, classes: np.ndarray) -> Callable[[], dict]:
    """Returns what measures by pytorch-metric-learning, with FAISS, on the CPU."""
    from pytorch_metric_learning.utils import accuracy_calculator
    import torch

    calculator = accuracy_calculator.AccuracyCalculator(
        include=tuple(NAMES), k="max_bin_count", device=torch.device("cpu")
    )
    tensors = torch.from_numpy(rows), torch.from_numpy(classes)
    return lambda: calculator.get_accuracy(*tensors)


def peak_mib() -> float:
    """Returns the most memory that this process had so far; on Linux."""
    # Not that of getrusage, which begins with what the parent process had.
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    prepare = {"ours": prepare_ours, "theirs": prepare_theirs}[sys.argv[1]]
    measure = prepare(*create_split(int(sys.argv[2])))
    before, start = peak_mib(), time.perf_counter()
    values = measure()
    seconds = time.perf_counter() - start
    answer = {"seconds": seconds, "extra_mib": peak_mib() - before, "values": values}
    print(json.dumps(answer))
