"""Metrics as other packages have them: run by the Python of requirements-bench.txt.

  python foreign_metrics.py embeddings.npz

The file holds `embeddings [N, D]`, `classes [N]` and `gains [N, N]`.
"""

import json
import sys

import jax.numpy as jnp
import numpy as np
from pytorch_metric_learning.utils import accuracy_calculator
import rax
import torch


def calculate(embeddings, classes, k):
    calculator = accuracy_calculator.AccuracyCalculator(
        exclude=("NMI", "AMI"), k=k, device=torch.device("cpu")
    )
    return calculator.get_accuracy(
        torch.from_numpy(embeddings), torch.from_numpy(classes)
    )


def rank(embeddings, classes, gains):
    """rax, which ranks one list of scores for each query."""
    num = len(classes)
    others = ~np.eye(num, dtype=bool)
    squares = np.square(embeddings[:, None] - embeddings[None]).sum(axis=2)
    scores = jnp.asarray(-squares[others].reshape(num, -1))
    hits = (classes[:, None] == classes[None])[others].reshape(num, -1)
    hits, gains = jnp.asarray(hits, float), jnp.asarray(gains[others].reshape(num, -1))
    rows = {
        "mrr": rax.mrr_metric(scores, hits, reduce_fn=None),
        "h_ap": rax.ap_metric(scores, hits, reduce_fn=None),
        "precision@5": rax.precision_metric(scores, hits, topn=5, reduce_fn=None),
    }
    rows |= {
        f"ndcg@{k}": rax.ndcg_metric(
            scores, gains, topn=k, gain_fn=lambda x: x, reduce_fn=None
        )
        for k in (1, 5, 10)
    }
    return {name: np.asarray(row, float).tolist() for name, row in rows.items()}


if __name__ == "__main__":
    with np.load(sys.argv[1]) as saved:
        embeddings, classes = saved["embeddings"], saved["classes"]
        answer = {
            "all": calculate(embeddings, classes, None),
            "max_bin_count": calculate(embeddings, classes, "max_bin_count"),
            "rax": rank(embeddings, classes, saved["gains"]),
        }
    print(json.dumps(answer))
