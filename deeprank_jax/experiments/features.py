"""Features of all records: descriptors, and embeddings of trained runs."""

from collections.abc import Callable, Mapping, Sequence
import functools
import pathlib

import ml_collections
import numpy as np
import tqdm

from deeprank_jax import config as config_lib
from deeprank_jax import descriptors, evaluation
from deeprank_jax.data.records import Records
from deeprank_jax.training import experiment

_BATCH = 256


def compute_descriptors(
    config: ml_collections.ConfigDict,
    splits: Mapping[str, Records],
    names: Sequence[str],
    image_size: int,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Returns descriptors by name, `[N, D]` each, and which records are ok, `[N]`.

    Args:
      config: says how images become squares, and how many threads there are.
      splits: the records; theirs are the rows, all splits in turn.
      names: of the descriptors, at least one.
      image_size: of the images that they are computed from.

    Raises:
      ValueError: there is no such descriptor, or the images are too small for it.
    """
    compute = functools.partial(descriptors.compute, names, workers=config.data.workers)
    blank = np.zeros((1, image_size, image_size, 3), np.uint8)
    widths = [x.shape[1] for x in compute(blank).values()]
    # One pass over the images; to read them takes longer than some descriptors.
    embed = lambda images: np.concatenate(list(compute(images).values()), axis=1)
    joined, ok = _embed(config, splits, embed, "descriptors", image_size)
    parts = np.split(joined, np.cumsum(widths)[:-1], axis=1)
    return dict(zip(names, parts, strict=True)), ok


def embed_by_run(
    workdir: pathlib.Path,
    splits: Mapping[str, Records],
    data_dir: str,
    *,
    logits: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns embeddings `[N, D]` of a run's best checkpoint, and which are ok, `[N]`.

    Args:
      workdir: of the run.
      splits: the records; theirs are the rows, all splits in turn.
      data_dir: where the run's own data are now.
      logits: what a classifier says in place of what its trunk does.

    Raises:
      ValueError: there is no such run, or it has no checkpoint that was evaluated.
      CheckpointError: the checkpoint is damaged.
    """
    config = config_lib.read_run_config(workdir)
    config.data.dir = data_dir
    with experiment.create_experiment(config, workdir) as run:
        best = run.checkpoints.best_step()
        if best is None:
            raise ValueError(f"{workdir} has no checkpoint that was evaluated.")
        run.restore(best)
        network = run.logits if logits else run.embed
        embed = lambda images: network(run.state, images)
        return _embed(config, splits, embed, workdir.name)


def _embed(
    config: ml_collections.ConfigDict,
    splits: Mapping[str, Records],
    embed_fn: Callable[[np.ndarray], np.ndarray],
    description: str,
    image_size: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    found = []
    for name, records in splits.items():
        progress = functools.partial(
            tqdm.tqdm,
            desc=f"{description}, {name}",
            total=-(-len(records) // _BATCH),
            unit="batch",
        )
        with experiment.create_reader(config, records, image_size=image_size) as reader:
            batches, size = reader.batches(_BATCH), len(records)
            embedded = evaluation.embed_split(
                embed_fn, batches, size, progress=progress
            )
        found.append(embedded)
    embeddings, ok = zip(*found, strict=True)
    width = max(x.shape[1] for x in embeddings)
    # Of a split of which nothing could be read, the rows have no length.
    filled = [x if x.shape[1] else np.zeros((len(x), width)) for x in embeddings]
    return np.concatenate(filled), np.concatenate(ok)
