"""Size and speed of an index of a large collection, from adding to searching.

Embeddings have 128 dimensions and lie in clusters, as those of `search`. Memory is the
most that the process holds, the embeddings made here and FAISS's graph included.
"""

import argparse
from collections.abc import Callable
import os
import pathlib
import resource
import statistics
import tempfile
import time
from typing import TypeVar

import numpy as np

from tools.benchmark import search

Result = TypeVar("Result")
_BLOCK, _K, _BATCH, _ROUNDS = 100_000, 10, 256, 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this benchmark."""
    parser.add_argument(
        "--rows", type=int, default=5_000_000, metavar="N",
        help="number of embeddings (default: %(default)s)",
    )  # fmt: skip


def measure(num_rows: int) -> dict[str, float]:
    """Returns all numbers.

    Args:
      num_rows: Number of embeddings.
    """
    from deeprank_jax.search import hnsw
    from deeprank_jax.search.index import VectorIndex

    gallery, queries = search.create_clusters(num_rows)
    with tempfile.TemporaryDirectory() as scratch:
        path = pathlib.Path(scratch) / "index"
        add_seconds = _fill(path, gallery)
        exact_seconds, truth = _search_exactly(gallery, queries[:_BATCH])
        size = _size(path)
        with VectorIndex.open(path, writable=True) as index:
            hnsw.import_faiss().omp_set_num_threads(os.cpu_count())
            start = time.perf_counter()
            index.prepare()
            build_seconds = time.perf_counter() - start
        start = time.perf_counter()
        with VectorIndex.open(path) as index:
            index.search(queries[:1], _K)
            first_seconds = time.perf_counter() - start
            seconds, ids = _time(lambda: index.search(queries[:_BATCH], _K).ids)
        graph_size = _size(path) - size
    num_hits = [
        len({str(row) for row in rows} & set(names))
        for rows, names in zip(truth, ids, strict=True)
    ]
    return {
        "rows": num_rows,
        "rows_added_per_s": num_rows / add_seconds,
        "disk_bytes_per_row": size / num_rows,
        "graph_bytes_per_row": graph_size / num_rows,
        "graph_build_seconds": build_seconds,
        "graph_first_answer_seconds": first_seconds,
        "graph_seconds_256_queries": seconds,
        f"graph_recall@{_K}": float(np.mean(num_hits)) / _K,
        "exact_seconds_256_queries": exact_seconds,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def _fill(path: pathlib.Path, gallery: np.ndarray) -> float:
    """Adds all rows, each with an id and one of 1,000 labels; returns the seconds."""
    from deeprank_jax.search.index import VectorIndex

    begun = time.perf_counter()
    with VectorIndex.create(
        path, dim=gallery.shape[1], model_fingerprint="", kind="hnsw"
    ) as index:
        for start in range(0, len(gallery), _BLOCK):
            rows = gallery[start : start + _BLOCK]
            numbers = range(start, start + len(rows))
            labels = [f"label {number % 1000}" for number in numbers]
            index.add([*map(str, numbers)], rows, labels)
    return time.perf_counter() - begun


def _search_exactly(
    gallery: np.ndarray, queries: np.ndarray
) -> tuple[float, np.ndarray]:
    """Returns the seconds of a search by all rows, and the nearest rows `[Q, k]`."""
    from deeprank_jax.search import exact

    comparison = exact.ExactSearch([gallery], *gallery.shape)
    return _time(lambda: comparison.search(queries, _K)[1])


def _time(work: Callable[[], Result]) -> tuple[float, Result]:
    """Returns the median seconds of some calls, after one, and what the last gave."""
    seconds, result = [], work()
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), result


def _size(path: pathlib.Path) -> int:
    """Returns the bytes of a folder's files."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
