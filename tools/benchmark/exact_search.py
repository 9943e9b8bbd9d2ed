"""Memory and speed of the exact search: `python -m tools.benchmark.exact_search N`.

Finds the 100 nearest of 1,000 queries among N rows, in a fresh process; then takes
turns with a large matrix product, which shows the peak of the machine. Prints one JSON
object. `tools.benchmark metrics` runs it.
"""

import argparse
import json
import time

from deeprank_jax.distributed import backend
from tools.benchmark.metrics_worker import DIM, peak_mib

backend.configure_backend()

import jax  # noqa: E402  It reads its flags when it starts.
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from deeprank_jax.search import neighbors  # noqa: E402

_QUERIES, _K = 1000, 100
# Sizes of the turns: a batch of queries as for a gallery.
_BATCH, _BATCH_K, _ROUNDS = 1024, 10, 5
_SIZE = 3072


def measure(num_rows: int) -> dict[str, float]:
    """Returns memory beyond the gallery in MiB, seconds, and the share of the peak."""
    rng = np.random.default_rng(0)
    gallery = rng.standard_normal((num_rows, DIM), np.float32)
    queries = rng.standard_normal((_BATCH, DIM), np.float32)
    before, start = peak_mib(), time.perf_counter()
    search = neighbors.ExactSearch([gallery], *gallery.shape)
    search.search(queries[:_QUERIES], _K)
    values = {
        "exact_search_extra_mib": peak_mib() - before,
        "exact_search_seconds": time.perf_counter() - start,
    }
    x = jnp.ones((_SIZE, _SIZE), jnp.float32)
    product = jax.jit(jnp.matmul)
    rates: dict[str, list[float]] = {"search": [], "product": []}
    for _ in range(1 + _ROUNDS):
        start = time.perf_counter()
        search.search(queries, _BATCH_K)
        between = time.perf_counter()
        product(x, x).block_until_ready()
        rates["search"].append(2 * gallery.size * _BATCH / (between - start))
        rates["product"].append(2 * _SIZE**3 / (time.perf_counter() - between))
    # The first round compiles; other load on the machine only ever slows down.
    fastest = {name: max(values[1:]) for name, values in rates.items()}
    return {
        **values,
        "exact_search_gflops": fastest["search"] / 1e9,
        "exact_search_peak_gflops": fastest["product"] / 1e9,
        "exact_search_peak_share": fastest["search"] / fastest["product"],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("num_rows", metavar="N", type=int, help="number of rows")
    print(json.dumps(measure(parser.parse_args().num_rows)))
