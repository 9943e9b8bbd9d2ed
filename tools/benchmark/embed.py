"""How much longer a table of embeddings takes than the forward pass: `benchmark embed`.

Reading, decoding, resizing and writing are to hide behind the network.
"""

import pathlib
import statistics
import tempfile
import time

from absl import flags
import numpy as np

from deeprank_jax.distributed import backend
from deeprank_jax.inference import embedding_table
from deeprank_jax.inference.model import Model
from deeprank_jax.inference.sources import open_source

_MODEL = flags.DEFINE_string("model", "model", "embed: an exported model.")
_SOURCE = flags.DEFINE_string(
    "source", "tfds:emoji/validation", "embed: a folder, a list, or tfds:NAME/SPLIT."
)
_ROUNDS = 9


def measure() -> dict[str, float]:
    """Returns the share of the forward pass, and the seconds behind it.

    The two take turns, and the fastest round of each counts: what else runs on the
    machine only ever adds.
    """
    backend.configure_backend()  # As the commands do.
    model = Model(_MODEL.value)
    records = open_source(_SOURCE.value, data_dir="data", like=model.data_config)
    images = np.random.default_rng(0).integers(
        0, 256, (len(records), model.image_size, model.image_size, 3), np.uint8
    )
    alone, whole = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(1 + _ROUNDS):
            start = time.perf_counter()
            model.embed_prepared(images)
            between = time.perf_counter()
            out = pathlib.Path(folder) / "table.parquet"
            embedding_table.embed_to_file(model, records, out)
            alone.append(between - start)
            whole.append(time.perf_counter() - between)
    # The first compiles.
    forward, table = min(alone[1:]), min(whole[1:])
    return {
        "embed_throughput_share": forward / table,
        "embed_images_per_s": len(records) / table,
        "embed_forward_seconds": forward,
        "embed_forward_seconds_median": statistics.median(alone[1:]),
        "embed_table_seconds": table,
        "embed_table_seconds_median": statistics.median(whole[1:]),
    }
