"""One side of `tools.benchmark metrics`: measures N rows once, in a fresh process.

  python -m tools.benchmark.metrics_worker SIDE N

SIDE is "ours", or "theirs" in an environment with pytorch-metric-learning. Prints one
JSON object.
"""

import argparse
from collections.abc import Callable
import json
import pathlib
import time

import numpy as np

DIM, PER_CLASS, NOISE = 128, 7, 1.0
# Their default metrics but mean_average_precision, which with "max_bin_count" does not
# go beyond rank R either.
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
    """Returns a function that measures by this package, compilation included."""
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
    """Returns a function that measures by pytorch-metric-learning on the CPU."""
    from pytorch_metric_learning.utils import accuracy_calculator
    import torch

    calculator = accuracy_calculator.AccuracyCalculator(
        include=tuple(NAMES), k="max_bin_count", device=torch.device("cpu")
    )
    tensors = torch.from_numpy(rows), torch.from_numpy(classes)
    return lambda: calculator.get_accuracy(*tensors)


def peak_mib() -> float:
    """Returns the peak memory of this process so far, on Linux."""
    # getrusage would begin with the peak of the parent process.
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    sides = {"ours": prepare_ours, "theirs": prepare_theirs}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side", choices=sides)
    parser.add_argument("num_rows", metavar="N", type=int, help="number of rows")
    options = parser.parse_args()
    measure = sides[options.side](*create_split(options.num_rows))
    before, start = peak_mib(), time.perf_counter()
    values = measure()
    seconds = time.perf_counter() - start
    answer = {"seconds": seconds, "extra_mib": peak_mib() - before, "values": values}
    print(json.dumps(answer))
