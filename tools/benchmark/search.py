"""Speed of the searches of a gallery, and recall of the graph.

The exact search is compared with FAISS Flat on all cores, in turns, each in a process
of its own. FAISS 1.15 compares queries one by one by default; with an option it
multiplies matrices, which is faster or, where its threads wait for a core, slower: the
ratio is to its fastest variant. The graph's queries use one thread.
"""

from collections.abc import Callable
import contextlib
import os
import pathlib
import statistics
import sys
import tempfile
import time

import numpy as np

from tools.benchmark import step_cases

_ROWS, _DIM, _BATCH, _K = 10**6, 128, 256, 10
_CLUSTERS, _INTRINSIC_DIM, _QUERIES = 10_000, 16, 4096
_ROUNDS = 7
# Variants of FAISS Flat: number of queries from which it multiplies matrices, and
# number of threads, 0 for all cores.
_FLAT = {"flat": (None, 0), "flat_product": (20, 0), "flat_product_alone": (20, 1)}


def measure() -> dict[str, float]:
    """Returns all numbers; three minutes on two cores, mostly to build the graph."""
    return {**measure_exact(), **measure_graph()}


def measure_exact() -> dict[str, float]:
    """Returns the ratio of our time to that of FAISS, and the seconds of a batch."""
    with contextlib.ExitStack() as stack:
        sides = {
            name: stack.enter_context(
                step_cases.Side(sys.executable, "tools.benchmark.search")
            )
            for name in ("ours", *_FLAT)
        }
        seconds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(_ROUNDS):
            for name, side in sides.items():
                answer = side.ask(f"{name}:{_ROWS}", 1)
                seconds[name].append(answer["seconds"][0])
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    ours = medians.pop("ours")
    return {
        "exact_time_ratio": ours / min(medians.values()),
        "exact_seconds": ours,
        **{f"exact_seconds_{name}": value for name, value in medians.items()},
    }


def prepare(case: str) -> Callable[[], object]:
    """Returns a function that searches for one batch, in the way that a case names."""
    name, num_rows = case.split(":")
    rng = np.random.default_rng(0)
    gallery = rng.standard_normal((int(num_rows), _DIM), np.float32)
    queries = rng.standard_normal((_BATCH, _DIM), np.float32)
    if name == "ours":
        from deeprank_jax.search import neighbors

        search = neighbors.ExactSearch([gallery], len(gallery), _DIM)
        return lambda: search.search(queries, _K)
    from deeprank_jax.search import hnsw

    faiss = hnsw.import_faiss()
    threshold, num_threads = _FLAT[name]
    if threshold is not None:
        faiss.cvar.distance_compute_blas_threshold = threshold
    faiss.omp_set_num_threads(num_threads or os.cpu_count())
    flat = faiss.IndexFlatL2(_DIM)
    flat.add(gallery)
    return lambda: flat.search(queries, _K)


def measure_graph() -> dict[str, float]:
    """Returns the graph's recall, speed and building time."""
    from deeprank_jax.search import exact, hnsw
    from deeprank_jax.search.index import VectorIndex

    faiss = hnsw.import_faiss()
    gallery, queries = create_clusters(_ROWS)
    truth = exact.ExactSearch([gallery], _ROWS, _DIM).search(queries, _K)[1]
    with tempfile.TemporaryDirectory() as scratch:
        path = pathlib.Path(scratch) / "index"
        with VectorIndex.create(
            path, dim=_DIM, model_fingerprint="", kind="hnsw"
        ) as index:
            for start in range(0, _ROWS, 100_000):
                rows = gallery[start : start + 100_000]
                index.add([str(start + i) for i in range(len(rows))], rows)
            faiss.omp_set_num_threads(os.cpu_count())
            start = time.perf_counter()
            index.prepare()
            build_seconds = time.perf_counter() - start
            faiss.omp_set_num_threads(1)
            speeds = []
            for _ in range(_ROUNDS):
                start = time.perf_counter()
                ids = index.search(queries, _K).ids
                speeds.append(_QUERIES / (time.perf_counter() - start))
    hits = [
        len({str(x) for x in nearest} & set(results))
        for nearest, results in zip(truth, ids, strict=True)
    ]
    return {
        f"hnsw_recall@{_K}": float(np.mean(hits)) / _K,
        "hnsw_queries_per_s_per_core": statistics.median(speeds),
        "hnsw_build_seconds": build_seconds,
    }


def create_clusters(num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns rows and queries of one distribution: clusters in random subspaces.

    The squared distance of two rows is 32 within a cluster and 288 between clusters.

    Args:
      num_rows: Number of rows.
    """
    rng = np.random.default_rng(0)
    per_cluster = -(-(num_rows + _QUERIES) // _CLUSTERS)
    points = np.empty((_CLUSTERS, per_cluster, _DIM), np.float32)
    for cluster in points:
        subspace = rng.standard_normal((_INTRINSIC_DIM, _DIM), np.float32)
        inside = rng.standard_normal((per_cluster, _INTRINSIC_DIM), np.float32)
        cluster[:] = rng.standard_normal((1, _DIM), np.float32)
        cluster += inside @ subspace / np.float32(_DIM**0.5)
    points = points.reshape(-1, _DIM)[rng.permutation(_CLUSTERS * per_cluster)]
    return points[:num_rows], points[num_rows : num_rows + _QUERIES]


if __name__ == "__main__":
    from deeprank_jax.distributed import backend

    backend.configure_backend()
    step_cases.serve(prepare)
