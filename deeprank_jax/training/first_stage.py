"""The first of two training stages, when one command trains both."""

from collections.abc import Callable
import copy
import os
import pathlib

from absl import logging
import ml_collections

from deeprank_jax import config as config_lib
from deeprank_jax import files
from deeprank_jax.distributed import processes
from deeprank_jax.errors import ConfigError
from deeprank_jax.training import data_defaults
from deeprank_jax.training.experiment import check_run
from deeprank_jax.training.workdir import Workdir

# How images are read and the network computes, which both stages share.
_SHARED_DATA = (
    "image_size", "fit", "max_pixels", "max_bad_share", "cache_mib", "workers",
    "prefetch",
)  # fmt: skip
_SHARED_MODEL = ("trunk", "dtype", "remat")


def train_first_stage(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    train: Callable[[ml_collections.ConfigDict, pathlib.Path], pathlib.Path],
) -> ml_collections.ConfigDict:
    """Trains the first stage of a run, unless it is finished.

    The second stage is checked before, as far as that is possible without its network.

    Args:
      config: Configuration of the run, with `first_stage`.
      workdir: Folder of the run; that of the first stage is in it.
      train: Function that trains a config in a folder.

    Returns:
      The configuration of the second stage, which starts from the first.

    Raises:
      ConfigError: The config of a stage cannot be used, or the run has another network
        to start from.
    """
    _check_start(config)
    run = Workdir(workdir)
    second = copy.deepcopy(data_defaults.fit_to_data(config, run.config))
    check_run(config_lib.resolve_config(second, run.config))
    first = create_first_config(second)
    with second.unlocked():
        second.init_from = str(run.first_stage)
        if os.path.isfile(second.first_stage):  # Not relative to the working directory.
            second.first_stage = files.absolute(second.first_stage)
    if processes.is_first():
        logging.info(
            "First of two stages: %s, in %s.", config.first_stage, run.first_stage
        )
    try:
        train(first, run.first_stage)
    except ConfigError as error:
        raise ConfigError(f"First stage, {config.first_stage}: {error}") from error
    if processes.is_first():
        logging.info("Second of two stages, from the network of the first.")
    return second


def _check_start(config: ml_collections.ConfigDict) -> None:
    """Checks that a run starts from its first stage alone.

    Raises:
      ConfigError: It has another network to start from.
    """
    if start := config.init_from:
        raise ConfigError(
            f"config.first_stage={config.first_stage!r} and config.init_from={start!r} "
            "both name a network to start from: give one."
        )
    if weights := config.model.weights:
        raise ConfigError(
            f"config.first_stage={config.first_stage!r} and config.model.weights="
            f"{weights!r} both name a network to start from: set the weights in the "
            'config of the first stage, and --config.model.weights="" here.'
        )


def create_first_config(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Returns the config of the first stage.

    Seed, plug-ins and trunk are those of the second stage, and so is how images are
    read and computed; images and splits are, too, if both read the same dataset.

    Args:
      config: Configuration of the second stage, with `first_stage`.

    Raises:
      ConfigError: The first stage has a first stage itself, or no such config exists.
    """
    try:
        first = config_lib.load_config(config.first_stage)
    except ConfigError as error:
        message = str(error).replace("--config=", "config.first_stage=")
        raise ConfigError(message) from error
    if first.get("first_stage"):
        raise ConfigError(
            f"config.first_stage={config.first_stage!r} has a first stage itself, "
            f"{first.first_stage!r}: name a config without one."
        )
    with first.unlocked():
        first.first_stage = ""
        first.seed = config.seed
        first.plugins = tuple(dict.fromkeys((*first.plugins, *config.plugins)))
        for key in _SHARED_MODEL:
            first.model[key] = copy.deepcopy(config.model[key])
        for key in _SHARED_DATA:
            first.data[key] = config.data[key]
        if _dataset_of(first) == _dataset_of(config):
            first.data.source = copy.deepcopy(config.data.source)
            first.data.dir = config.data.dir
    return first


def _dataset_of(config: ml_collections.ConfigDict) -> tuple[str, str | None]:
    """Returns the source of a config's data, and the name of the dataset if it has."""
    return config.data.source.name, config.data.source.get("dataset")
