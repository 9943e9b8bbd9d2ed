"""Whitening of a run's embeddings: fitted when training ends, kept in the workdir."""

from collections.abc import Iterator, Mapping
import dataclasses
import functools
import pathlib
from typing import Any

from absl import logging
import jax
import numpy as np

from deeprank_jax import checksums, files, losses
from deeprank_jax import config as config_lib
from deeprank_jax.data.reader import ImageReader
from deeprank_jax.distributed import devices, processes
from deeprank_jax.errors import CheckpointError, ConfigError
from deeprank_jax.evaluation.embed import embed_split
from deeprank_jax.progress import Bar
from deeprank_jax.training.checkpoints import Saved, digest_arrays
from deeprank_jax.training.experiment import Experiment
from deeprank_jax.training.step import TrainState, network_arrays
from deeprank_jax.training.workdir import Workdir

# Images that are embedded at most.
_MAX_IMAGES = 20_000
_MATRIX = "model_state/whitening/matrix/value"


def fit_whitening(embeddings: np.ndarray, power: float) -> np.ndarray:
    """Returns the matrix that whitens embeddings.

    Along each principal axis of their second moments, embeddings are divided by the
    root of the moment to the given power. They are not centred: their mean is close to
    one of the axes. The moments are shrunk towards their average, so that it also works
    with fewer embeddings than dimensions. The matrix is symmetric, so that it does not
    depend on the choice of axes among those with equal moments.

    Args:
      embeddings: `[N, D]` float, of training images.
      power: Exponent of the division, from 0 (unchanged) to 1 (equal moments).

    Returns:
      `[D, D]` float32, for `embeddings @ matrix`.

    References:
      Jégou and Chum, Negative evidences and co-occurences in image retrieval: the
      benefit of PCA and whitening, 2012,
      https://doi.org/10.1007/978-3-642-33709-3_55.
      Ledoit and Wolf, A well-conditioned estimator for large-dimensional covariance
      matrices, 2004, https://doi.org/10.1016/S0047-259X(03)00096-4.
    """
    from sklearn import covariance  # Takes a second to import.

    shrunk, _ = covariance.ledoit_wolf(
        np.asarray(embeddings, np.float64), assume_centered=True
    )
    moments, axes = np.linalg.eigh(shrunk)
    # Avoids division by 0 along axes without any spread.
    least = np.finfo(np.float32).eps * max(moments[-1], np.finfo(np.float32).tiny)
    scaled = axes * np.maximum(moments, least) ** (-power / 2)
    return (scaled @ axes.T).astype(np.float32)


def whiten(experiment: Experiment) -> int:
    """Fits the whitening of the state's network on training images, and saves it.

    The network embeds with the whitening from then on.

    Args:
      experiment: Parts of the run, with the state whose network is the result.

    Returns:
      Number of images that the whitening is fitted on; 0 without a whitening.
    """
    if not experiment.config.model.whitening_power:
        return 0
    path = Workdir(experiment.workdir).whitening
    arrays = network_arrays(experiment.state)
    embeddings = _embed_training_images(experiment, experiment.state)
    if len(embeddings) < 2:
        logging.warning("No two training images can be read: nothing is whitened.")
        if processes.is_first():
            path.unlink(missing_ok=True)
        return 0
    matrix = _fit_together(experiment, embeddings)
    if processes.is_first():
        with files.replacing(path) as file:
            np.savez(file, network=_digest(arrays), matrix=matrix)
    experiment.state = _with_matrix(experiment.state, matrix)
    return len(embeddings)


def whiten_untrained(
    experiment: Experiment, untrained: TrainState
) -> TrainState | None:
    """Returns the network before training with a whitening fitted to it.

    By it, a report tells training from whitening.

    Args:
      experiment: Parts of the run.
      untrained: State of the network before training, which is not changed.

    Returns:
      The state; None if the config has no whitening, or there is nothing to fit it on.
    """
    if not experiment.config.model.whitening_power:
        return None
    embeddings = _embed_training_images(experiment, untrained)
    if len(embeddings) < 2:
        return None
    return _with_matrix(untrained, _fit_together(experiment, embeddings))


def _fit_together(experiment: Experiment, embeddings: np.ndarray) -> np.ndarray:
    """Returns the matrix of the first process, the same on all to the bit."""
    matrix = np.zeros((embeddings.shape[1],) * 2, np.float32)
    if processes.is_first():
        matrix = fit_whitening(embeddings, experiment.config.model.whitening_power)
    return processes.of_first(matrix)


def check_whitening(experiment: Experiment, saved: pathlib.Path | None) -> None:
    """Checks that the network can be whitened, if the config asks for it.

    Args:
      experiment: Parts of the run.
      saved: Path of the config that the run began with; None for a new run.

    Raises:
      ConfigError: The network has no whitening, or learns binary codes, or the run
        began without one, or with one that the config now turns off.
    """
    config = experiment.config
    power = config.model.whitening_power
    if power and losses.learns_codes(config.loss.to_dict()):
        raise ConfigError(
            f"config.model.whitening_power={power} would turn the axes of embeddings, "
            f"whose signs config.loss.name={config.loss.name!r} trains as codes: set "
            "--config.model.whitening_power=0."
        )
    if power and _MATRIX not in network_arrays(experiment.state):
        raise ConfigError(
            f"config.model.whitening_power={power}, and the network of "
            f"config.task.name={config.task.name!r} has no Whitening module; set it to "
            "0."
        )
    if saved is None or not saved.is_file():
        return
    before = config_lib.read_run_config(saved.parent).model.whitening_power
    if bool(before) != bool(power):
        raise ConfigError(
            f"config.model.whitening_power was {before} and is {power} now: only a "
            "power above 0 can change to another; give the value that the run began "
            "with, or another --workdir."
        )


def restore_whitening(experiment: Experiment) -> None:
    """Gives a restored state the whitening that was fitted to its network.

    Args:
      experiment: Parts of a finished run, with the state of its best step.

    Raises:
      CheckpointError: The whitening cannot be read.
    """
    arrays = network_arrays(experiment.state)
    path = Workdir(experiment.workdir).whitening
    matrix = _read(path, arrays, str(experiment.workdir))
    if matrix is not None:
        experiment.state = _with_matrix(experiment.state, matrix)


def with_whitening(saved: Saved) -> Saved:
    """Returns a run's network with the whitening that was fitted when training ended.

    Args:
      saved: Network of a checkpoint.

    Raises:
      CheckpointError: The whitening cannot be read.
    """
    path = Workdir(saved.where.parent.parent).whitening
    matrix = _read(path, saved.arrays, str(saved.where))
    if matrix is None:
        return saved
    return dataclasses.replace(saved, arrays={**saved.arrays, _MATRIX: matrix})


def is_whitened(saved: Saved) -> bool:
    """Returns whether a network has a whitening that was fitted."""
    matrix = saved.arrays.get(_MATRIX)
    return matrix is not None and not np.array_equal(matrix, np.eye(len(matrix)))


def _read(
    path: pathlib.Path, arrays: Mapping[str, Any], network: str
) -> np.ndarray | None:
    """Returns the matrix that was fitted to a network; None without one.

    Args:
      path: Path of the file.
      arrays: Arrays of the network by name.
      network: Name of the network, for the log.

    Raises:
      CheckpointError: The file is damaged.
    """
    if _MATRIX not in arrays:
        return None
    shape = arrays[_MATRIX].shape
    try:
        checksums.check_listed(path)
        saved = checksums.read_arrays(path)
        digest, matrix = str(saved["network"]), saved["matrix"]
        if matrix.shape != shape:
            raise ValueError(f"a matrix of the shape {matrix.shape}, not {shape}")
    except FileNotFoundError:
        digest, matrix = "", None
    except (ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path} is damaged ({error}); run the training command again, which fits "
            "it anew."
        ) from error
    if digest == _digest(arrays):
        return matrix
    logging.warning(
        "%s: embeddings are not whitened, since the whitening is fitted to the best "
        "step when training ends.",
        network,
    )
    return None


def _digest(arrays: Mapping[str, Any]) -> str:
    """Returns a digest of a network without its whitening."""
    return digest_arrays({name: x for name, x in arrays.items() if name != _MATRIX})


def _with_matrix(state: TrainState, matrix: np.ndarray) -> TrainState:
    """Returns a state on all devices whose network whitens with a matrix."""
    model_state = jax.tree.map_with_path(
        lambda path, leaf: (
            matrix
            if _MATRIX.endswith(jax.tree_util.keystr(path, simple=True, separator="/"))
            else leaf
        ),
        state.model_state,
    )
    return devices.replicate(dataclasses.replace(state, model_state=model_state))


def _embed_training_images(experiment: Experiment, state: TrainState) -> np.ndarray:
    """Returns embeddings `[N, D]` of training images, spread over the whole split."""
    num_records = len(experiment.records["train"])
    num = min(num_records, _MAX_IMAGES)
    records = np.linspace(0, num_records - 1, num).astype(int)
    start, stop = processes.own_share(num)
    size = experiment.config.evaluation.batch_size
    progress = functools.partial(
        Bar,
        desc="whitening",
        total=-(-(stop - start) // size),
        unit="batch",
        leave=False,
        shown=processes.is_first(),
    )
    embeddings, ok = embed_split(
        # Shifts take five times as long, and whiten no better.
        functools.partial(experiment.embed_once, state),
        _read_batches(experiment.readers["train"], records, size, start, stop),
        num,
        progress=progress,
    )
    return processes.gather_shares(embeddings)[processes.gather_shares(ok)]


def _read_batches(
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
