"""Retrieval by binary codes, beside the embeddings that they are made of.

Encoders are fitted on training images; `learned` are the signs of the numbers as they
are, the codes of a network that learned them. Recall@1 and MAP@R of the test split are
by the Hamming distance, with `asymmetric` by the query's numbers and the 100 nearest
codes, with `rerank` by their embeddings. Speed is that of a search for 10 neighbours
among random rows on one core, without either.
"""

import argparse
import time

import numpy as np

from deeprank_jax.evaluation.average_precision import average_precision
from deeprank_jax.evaluation.rankings import class_sizes
from deeprank_jax.inference import bulk
from deeprank_jax.search import codes
from deeprank_jax.search.neighbors import nearest_neighbors
from tools.benchmark import dataset

_BITS = (32, 64, 128, 256)
_RERANKED, _ROUNDS = 100, 5
_ROWS, _QUERIES, _DIM, _K = 200_000, 16, 512, 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this benchmark."""
    dataset.add_arguments(parser)


def measure(options: argparse.Namespace) -> dict[str, float]:
    """Returns all numbers."""
    model, records = dataset.open_dataset(options)
    train, _ = bulk.embed_records(model, records["train"])
    test, indices = bulk.embed_records(model, records["test"])
    labels = records["test"].labels[indices, -1]
    return measure_retrieval(train, test, labels) | measure_speed()


def measure_retrieval(
    train: np.ndarray, test: np.ndarray, labels: np.ndarray
) -> dict[str, float]:
    """Returns Recall@1 and MAP@R by each encoder.

    Args:
      train: `[N, D]` embeddings that the encoders are fitted on.
      test: `[M, D]` embeddings that are searched with each other.
      labels: `[M]` ints, classes of the latter.
    """
    depth = max(_RERANKED, int(class_sizes(labels).max()))
    depth = min(depth, len(test) - 1)
    _, nearest = nearest_neighbors(test, test, depth, exclude_self=True)
    values = {"float_bytes": 4.0 * test.shape[1], **_metrics("float", nearest, labels)}
    dim = test.shape[1]
    encoders = {
        f"signs_{dim}": codes.fit_signs(train),
        f"learned_{dim}": codes.Encoder(
            matrix=np.eye(dim, dtype=np.float32), thresholds=np.zeros(dim, np.float32)
        ),
    }
    for num_bits in _BITS:
        encoders[f"hyperplanes_{num_bits}"] = codes.fit_hyperplanes(train, num_bits)
        if num_bits <= min(train.shape):
            encoders[f"itq_{num_bits}"] = codes.fit_itq(train, num_bits)
    for name, encoder in encoders.items():
        packed = encoder(test)
        _, nearest = codes.hamming_neighbors(packed, packed, depth, exclude_self=True)
        values |= _metrics(name, nearest, labels)
        asymmetric = nearest.copy()
        asymmetric[:, :_RERANKED] = codes.reorder_by_numbers(
            encoder.numbers(test), packed, nearest[:, :_RERANKED]
        )
        values |= _metrics(f"{name}_asymmetric", asymmetric, labels)
        values |= _metrics(f"{name}_rerank", _rerank(test, nearest), labels)
    return values


def _rerank(embeddings: np.ndarray, nearest: np.ndarray) -> np.ndarray:
    """Returns the first neighbours `[M, k]` in the order of their embeddings."""
    reordered = nearest.copy()
    for i, rows in enumerate(nearest[:, :_RERANKED]):
        squares = np.sum(np.square(embeddings[rows] - embeddings[i]), axis=1)
        reordered[i, : len(rows)] = rows[np.argsort(squares, kind="stable")]
    return reordered


def _metrics(name: str, nearest: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Returns Recall@1 and MAP@R of neighbours `[M, k]`."""
    hits = labels[nearest] == labels[:, None]
    num_relevant = class_sizes(labels) - 1
    counts = num_relevant > 0
    precision = average_precision(hits[counts], num_relevant[counts])
    return {
        f"{name}_recall_at_1": float(hits[counts, 0].mean()),
        f"{name}_map_at_r": float(precision.mean()),
    }


def measure_speed() -> dict[str, float]:
    """Returns how many times as fast 64 bits are searched as the embeddings."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(_ROWS, _DIM)).astype(np.float32)
    packed = codes.fit_hyperplanes(rows[:1000], 64)(rows)
    norms = np.einsum("nd,nd->n", rows, rows)
    seconds: dict[str, list[float]] = {"float": [], "hamming": []}
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        squares = norms - 2.0 * rows[:_QUERIES] @ rows.T
        np.argpartition(squares, _K, axis=1)
        middle = time.perf_counter()
        codes.hamming_neighbors(packed[:_QUERIES], packed, _K)
        seconds["float"].append(middle - start)
        seconds["hamming"].append(time.perf_counter() - middle)
    # Other load only ever adds time.
    return {"hamming_64_speed_ratio": min(seconds["float"]) / min(seconds["hamming"])}
