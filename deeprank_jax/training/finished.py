"""Recognition of a finished run, which need not be trained or measured again."""

from collections.abc import Iterator
import pathlib

import jax
import ml_collections

from deeprank_jax import checksums, files
from deeprank_jax import config as config_lib
from deeprank_jax.data import create_records
from deeprank_jax.relevance import attach
from deeprank_jax.training import image_digest
from deeprank_jax.training.experiment import create_run_relevance
from deeprank_jax.training.step_folders import StepFolders
from deeprank_jax.training.workdir import Workdir


def is_finished(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> bool:
    """Returns whether a run has ended, and nothing that it depends on has changed.

    Config and images have to be those of the run, its results, report and checkpoints
    as they were written. A run of several processes, or whose config names a file that
    may have changed, is measured again.

    Args:
      config: Whole configuration, without values that are None for the data to choose.
      workdir: Folder of the run.

    Raises:
      DataError: The data cannot be used.
    """
    run = Workdir(workdir)
    return (
        jax.process_count() == 1
        and run.is_finished()
        and files.read_json(run.config) == config_lib.saved_values(config)
        and not any(_named_files(config))
        and StepFolders(run.checkpoints.absolute()).are_intact()
        and _has_same_images(config, run.images)
    )


def _named_files(config: ml_collections.ConfigDict) -> Iterator[str]:
    """Yields the files that a config names, but for its data."""
    if config.plugins:
        yield from config.plugins
    for key, value in config_lib.flatten_config(config).items():
        for text in value if isinstance(value, list | tuple) else [value]:
            if (
                isinstance(text, str)
                and key != "data.dir"
                and pathlib.Path(text).is_file()
            ):
                yield text


def _has_same_images(config: ml_collections.ConfigDict, path: pathlib.Path) -> bool:
    """Returns whether the images are those whose digests a run has noted."""
    try:
        noted = checksums.unseal_json(files.read_json(path))
    except (OSError, ValueError):
        return False
    records = attach(create_run_relevance(config), create_records(config.data))
    return noted == image_digest.digest_images(records)
