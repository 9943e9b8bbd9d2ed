"""Whitening of a run's embeddings: fitted when training ends, kept in the workdir."""

from collections.abc import Iterator
import dataclasses
import functools
import zipfile

from absl import logging
import jax
import numpy as np
from sklearn import covariance
import tqdm

from deeprank_jax import files
from deeprank_jax.data.reader import ImageReader
from deeprank_jax.distributed import devices, processes
from deeprank_jax.errors import CheckpointError
from deeprank_jax.evaluation.embed import embed_split
from deeprank_jax.training.checkpoints import Saved
from deeprank_jax.training.experiment import Experiment
from deeprank_jax.training.workdir import Workdir

# Images that are embedded at most: enough for the covariance of 2,048 dimensions.
_MAX_IMAGES = 20_000
_MATRIX = "model_state/whitening/matrix/value"


def fit_whitening(embeddings: np.ndarray, power: float) -> np.ndarray:
    """Returns the matrix that whitens embeddings.

    The embeddings are turned to the principal axes of their second moments, largest
    first, and axis i is divided by the root of its moment to the given power. They are
    not centred: their mean is close to one of the axes. The moments are shrunk towards
    their average, so that few embeddings of many dimensions can be whitened, too.

    Args:
      embeddings: `[N, D]` float, of training images.
      power: Power of the roots: 1 gives all axes the same moment, less evens out less.

    Returns:
      `[D, D]` float32, for `embeddings @ matrix`.

    References:
      Jégou and Chum, Negative evidences and co-occurences in image retrieval: the
      benefit of PCA and whitening, 2012,
      https://doi.org/10.1007/978-3-642-33709-3_55.
      Ledoit and Wolf, A well-conditioned estimator for large-dimensional covariance
      matrices, 2004, https://doi.org/10.1016/S0047-259X(03)00096-4.
    """
    shrunk, _ = covariance.ledoit_wolf(
        np.asarray(embeddings, np.float64), assume_centered=True
    )
    moments, axes = np.linalg.eigh(shrunk)
    moments, axes = moments[::-1], axes[:, ::-1]
    # The sign of an axis is arbitrary: its largest coordinate is positive.
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], axis=0)
    axes = axes * np.where(largest < 0, -1.0, 1.0)
    # Embeddings that are all equal have one axis.
    least = np.finfo(np.float32).eps * max(moments[0], np.finfo(np.float32).tiny)
    return (axes * np.maximum(moments, least) ** (-power / 2)).astype(np.float32)


def whiten(experiment: Experiment) -> int:
    """Fits the whitening of the state's network on training images, and saves it.

    Args:
      experiment: Parts of the run, with the state whose network is the result. Its
        network embeds with the whitening from then on.

    Returns:
      Number of images it is fitted on; 0 if the config asks for none.
    """
    power = experiment.config.model.whitening_power
    if not power:
        return 0
    embeddings = _embed_training_images(experiment)
    if len(embeddings) < 2:
        logging.warning("No two training images can be read: nothing is whitened.")
        return 0
    matrix = fit_whitening(embeddings, power)
    if processes.is_first():
        step = int(experiment.state.step)
        with files.replacing(Workdir(experiment.workdir).whitening) as file:
            np.savez(file, step=step, matrix=matrix)
    parts = {"model_state": experiment.state.model_state}
    parts = jax.tree.map_with_path(
        lambda path, leaf: (
            matrix
            if jax.tree_util.keystr(path, simple=True, separator="/") == _MATRIX
            else leaf
        ),
        parts,
    )
    experiment.state = devices.replicate(dataclasses.replace(experiment.state, **parts))
    return len(embeddings)


def _embed_training_images(experiment: Experiment) -> np.ndarray:
    """Returns embeddings `[N, D]` of training images, spread over the whole split."""
    num_records = len(experiment.records["train"])
    num = min(num_records, _MAX_IMAGES)
    records = np.linspace(0, num_records - 1, num).astype(int)
    start, stop = processes.own_share(num)
    size = experiment.config.evaluation.batch_size
    progress = functools.partial(
        tqdm.tqdm,
        desc="whitening",
        total=-(-(stop - start) // size),
        unit="batch",
        leave=False,
        disable=not processes.is_first(),
    )
    embeddings, ok = embed_split(
        lambda images: experiment.embed(experiment.state, images),
        _read(experiment.readers["train"], records, size, start, stop),
        num,
        progress=progress,
    )
    return processes.gather_shares(embeddings)[processes.gather_shares(ok)]


def _read(
    reader: ImageReader, records: np.ndarray, size: int, start: int, stop: int
) -> Iterator[dict[str, np.ndarray]]:
    """Yields batches of the chosen records from `start` to `stop`, the last padded."""
    for first in range(start, stop, size):
        indices = np.arange(first, min(first + size, stop))
        images, ok = reader.load(records[indices])
        padding = (0, size - len(indices))
        yield {
            "images": np.pad(images, (padding, *((0, 0),) * 3)),
            "indices": np.pad(indices, padding),
            "mask": np.pad(ok, padding),
        }


def with_whitening(saved: Saved) -> Saved:
    """Returns a run's network with the whitening that was fitted when training ended.

    Args:
      saved: Network of a checkpoint.

    Raises:
      CheckpointError: The whitening cannot be read.
    """
    if _MATRIX not in saved.arrays:
        return saved
    path = Workdir(saved.where.parent.parent).whitening
    try:
        with np.load(path) as file:
            step, matrix = int(file["step"]), file["matrix"]
    except FileNotFoundError:
        step, matrix = None, None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise CheckpointError(
            f"{path} is damaged ({error}); delete it and run the training command "
            "again, which fits it anew."
        ) from error
    if matrix is None or step != int(saved.where.name):
        logging.warning(
            "%s: embeddings are not whitened, since the whitening is fitted to the "
            "best step when training ends.",
            saved.where,
        )
        return saved
    return dataclasses.replace(saved, arrays=saved.arrays | {_MATRIX: matrix})
