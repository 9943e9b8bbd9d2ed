"""Commands that the faults of processes strike, and the results they must have."""

from collections.abc import Callable
import dataclasses
import json
import pathlib
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from deeprank_jax.inference import embedding_table, index_origins
from deeprank_jax.inference.model import Model
from deeprank_jax.search.index import VectorIndex
from tools.faults.samples import Samples
from tools.faults.stored import digest

_STEPS = 16


@dataclasses.dataclass(frozen=True)
class Command:
    """A command with one output.

    Attributes:
      words: Function from the path of the output to the words of the command.
      name: Name of the output in its folder.
      read: Function from the path of the output to a result that can be compared.
    """

    words: Callable[[pathlib.Path], list[str]]
    name: str
    read: Callable[[pathlib.Path], object]


def create_commands(samples: Samples, images: pathlib.Path) -> dict[str, Command]:
    """Returns the commands by name.

    Args:
      samples: Samples, whose run and model are created for the commands that use them.
      images: Folder of images to embed.
    """
    return {
        "train": Command(
            lambda out: ["train", *samples.flags(out, num_steps=_STEPS)],
            "run",
            read_run,
        ),
        "export": Command(
            lambda out: [
                "export", f"--workdir={samples.run}", f"--out={out}",
                "--force_threshold",
            ],
            "model",
            _read_model,
        ),
        "embed": Command(
            lambda out: [
                "embed", str(images), f"--model={samples.model}", f"--out={out}",
            ],
            "photos.parquet",
            _read_table,
        ),
        "index": Command(
            lambda out: [
                "index", str(images), f"--model={samples.model}", f"--out={out}",
            ],
            "index",
            _read_index,
        ),
    }  # fmt: skip


def read_run(workdir: pathlib.Path) -> object:
    """Returns digests of a run's last state, its sampler's state and its results."""
    last = max((workdir / "checkpoints").glob("[0-9]*"), key=lambda p: int(p.name))
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    with ocp.StandardCheckpointer() as checkpointer:
        metadata: Any = checkpointer.metadata(last / "state").item_metadata
        # Saved by one process or several.
        abstract = {
            name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device)
            for name, x in metadata.items()
        }
        state = checkpointer.restore(last / "state", abstract)
    arrays = [np.asarray(state[name]) for name in sorted(state)]
    run = json.loads((last / "run" / "metadata").read_text())
    results = [(workdir / x).read_text() for x in ("results.json", "intervals.json")]
    return last.name, digest(*arrays), run["sampler"], results


def _read_model(folder: pathlib.Path) -> object:
    model = Model(folder)
    info = {key: x for key, x in model.artifact.info.items() if key != "commit"}
    return model.fingerprint, json.dumps(info, sort_keys=True)


def _read_table(path: pathlib.Path) -> object:
    paths, labels, embeddings, model = embedding_table.read_table(path)
    return paths, labels, digest(embeddings), model


def _read_index(folder: pathlib.Path) -> object:
    index = VectorIndex.open(folder)
    origins = index_origins.read_origins(folder)
    neighbors = index.search(np.eye(index.dim, dtype=np.float32), len(index))
    return index.ids(), digest(neighbors.distances), neighbors.ids, origins
