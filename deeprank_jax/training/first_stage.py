"""The first of two training stages, when one command trains both."""

from collections.abc import Callable
import copy
import pathlib

from absl import logging
import ml_collections

from deeprank_jax import config as config_lib
from deeprank_jax.distributed import processes
from deeprank_jax.errors import ConfigError
from deeprank_jax.training.workdir import Workdir


def train_first_stage(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    train: Callable[[ml_collections.ConfigDict, pathlib.Path], pathlib.Path],
) -> ml_collections.ConfigDict:
    """Trains the first stage of a run, unless it is finished.

    Args:
      config: Configuration of the run, with `first_stage`.
      workdir: Folder of the run; that of the first stage is in it.
      train: Function that trains a config in a folder.

    Returns:
      The configuration of the second stage, which starts from the first.

    Raises:
      ConfigError: The config of the first stage cannot be used, or the run has another
        network to start from.
    """
    for key, start in (
        ("init_from", config.init_from),
        ("model.weights", config.model.weights),
    ):
        if start:
            raise ConfigError(
                f"config.first_stage={config.first_stage!r} and config.{key}={start!r} "
                "both name a network to start from: give one."
            )
    folder = Workdir(workdir).first_stage
    first = create_first_config(config)
    if processes.is_first():
        logging.info("First of two stages: %s, in %s.", config.first_stage, folder)
    train(first, folder)
    if processes.is_first():
        logging.info("Second of two stages, from the network of the first.")
    second = copy.deepcopy(config)
    with second.unlocked():
        second.init_from = str(folder)
    return second


def create_first_config(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Returns the config of the first stage.

    Seed, trunk and image size are those of the second stage, and so are the data if
    both are of the same kind.

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
        first.model.trunk = copy.deepcopy(config.model.trunk)
        first.data.image_size = config.data.image_size
        if _kind_of_data(first) == _kind_of_data(config):
            first.data.source = copy.deepcopy(config.data.source)
            first.data.dir = config.data.dir
    return first


def _kind_of_data(config: ml_collections.ConfigDict) -> tuple[str, str | None]:
    """Returns the source of a config's data, and the name of the dataset if it has."""
    return config.data.source.name, config.data.source.get("dataset")
