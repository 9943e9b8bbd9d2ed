"""Time to write a table of embeddings, compared with the forward pass alone.

Reading, decoding, resizing and writing should hide behind the network.
"""

import argparse
import pathlib
import statistics
import tempfile
import time

import numpy as np

from deeprank_jax.distributed import backend
from deeprank_jax.inference import embedding_table
from deeprank_jax.inference.model import Model
from deeprank_jax.inference.sources import open_source

_ROUNDS = 9


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of this benchmark."""
    parser.add_argument(
        "--model", default="model", help="exported model (default: %(default)s)"
    )
    parser.add_argument(
        "--source", default="tfds:emoji/validation",
        help="folder, list, or tfds:NAME/SPLIT (default: %(default)s)",
    )  # fmt: skip


def measure(model_folder: str, source: str) -> dict[str, float]:
    """Measures the share of the forward pass.

    The two take turns, and the fastest round of each counts, as other load on the
    machine only ever adds time.

    Args:
      model_folder: Folder of an exported model.
      source: Folder, list, or tfds:NAME/SPLIT.
    """
    backend.configure_backend()
    model = Model(model_folder)
    records = open_source(source, data_dir="data", like=model.data_config)
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
    # The first round compiles.
    forward, table = min(alone[1:]), min(whole[1:])
    return {
        "embed_throughput_share": forward / table,
        "embed_images_per_s": len(records) / table,
        "embed_forward_seconds": forward,
        "embed_forward_seconds_median": statistics.median(alone[1:]),
        "embed_table_seconds": table,
        "embed_table_seconds_median": statistics.median(whole[1:]),
    }
