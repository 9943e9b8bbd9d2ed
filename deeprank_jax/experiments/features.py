"""Features of all records: descriptors, and embeddings by trained runs."""

from collections.abc import Callable, Mapping, Sequence
import functools
import pathlib

import ml_collections
import numpy as np

from deeprank_jax import config as config_lib
from deeprank_jax import descriptors, evaluation
from deeprank_jax.data.records import Records
from deeprank_jax.errors import CheckpointError
from deeprank_jax.progress import Bar
from deeprank_jax.training import experiment, whitening
from deeprank_jax.training.workdir import Workdir

_BATCH = 256


def compute_descriptors(
    config: ml_collections.ConfigDict,
    splits: Mapping[str, Records],
    names: Sequence[str],
    image_size: int,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Computes descriptors of all records.

    Args:
      config: Config whose `data` section says how images are resized and how many
        threads read them.
      splits: Records of each split; the rows are those of all splits in turn.
      names: Names of the descriptors, at least one.
      image_size: Side of the images described, in pixels.

    Returns:
      Descriptors `[N, D]` by name, and a mask `[N]` of the records that could be read.

    Raises:
      ValueError: There is no such descriptor, or the images are too small for it.
    """
    compute = functools.partial(descriptors.compute, names, workers=config.data.workers)
    blank = np.zeros((1, image_size, image_size, 3), np.uint8)
    widths = [x.shape[1] for x in compute(blank).values()]
    # Reading the images takes longer than some descriptors, so they are read once.
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
    """Embeds all records with a run's best checkpoint.

    Args:
      workdir: Folder of the run.
      splits: Records of each split; the rows are those of all splits in turn.
      data_dir: Folder that holds the run's own data now.
      logits: True for a classifier's logits instead of its trunk's features.

    Returns:
      Embeddings `[N, D]`, and a mask `[N]` of the records that could be read.

    Raises:
      ConfigError: The folder is not a run.
      CheckpointError: The run has no evaluated checkpoint, or it is damaged.
      LockedError: The run is being trained.
    """
    config = config_lib.read_run_config(workdir)
    config.data.dir = data_dir
    with (
        Workdir(workdir).locked(),
        experiment.create_experiment(config, workdir) as run,
    ):
        best = run.checkpoints.best_step()
        if best is None:
            raise CheckpointError(
                f"{workdir} has no checkpoint that was evaluated; train it further, "
                "or remove it, so that it is trained again."
            )
        run.restore(best)
        whitening.restore_whitening(run)
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
    parts = []
    for name, records in splits.items():
        progress = functools.partial(
            Bar,
            desc=f"{description}, {name}",
            total=-(-len(records) // _BATCH),
            unit="batch",
        )
        with experiment.create_reader(config, records, image_size=image_size) as reader:
            batches, size = reader.batches(_BATCH), len(records)
            part = evaluation.embed_split(embed_fn, batches, size, progress=progress)
        parts.append(part)
    embeddings, ok = zip(*parts, strict=True)
    width = max(x.shape[1] for x in embeddings)
    # A split without a readable image has rows of length 0.
    padded = [x if x.shape[1] else np.zeros((len(x), width)) for x in embeddings]
    return np.concatenate(padded), np.concatenate(ok)
