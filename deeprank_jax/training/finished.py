"""Recognition of a finished run, which need not be trained or measured again."""

from collections.abc import Iterator
import os
import pathlib

import jax
import ml_collections

from deeprank_jax import checksums, files, version
from deeprank_jax import config as config_lib
from deeprank_jax.data import create_records
from deeprank_jax.relevance import attach
from deeprank_jax.training import image_digest
from deeprank_jax.training.experiment import create_run_relevance
from deeprank_jax.training.step_folders import StepFolders
from deeprank_jax.training.workdir import Workdir

# Last parts of keys whose value is a file or a folder, even if it is not there now.
_FILE_KEYS = ("file", "weights", "init_from", "teacher")
# Names of kinds; a folder of that name beside the run is none of its files.
_KIND_KEY = "name"


def is_finished(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> bool:
    """Returns whether a run has ended, and nothing that it depends on has changed.

    Config, images and the version of this project have to be those of the run, its
    results, report and checkpoints as they were written. A run of several processes,
    or whose config names a file that may have changed, is measured again.

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
        and _has_same_version(run.version)
        and files.read_json(run.config) == config_lib.saved_values(config)
        and not any(_named_files(config))
        and StepFolders(run.checkpoints.absolute()).are_intact()
        and _has_same_images(config, run.images)
    )


def _has_same_version(path: pathlib.Path) -> bool:
    """Returns whether a run was measured by the version that is installed."""
    return files.read_text(path, errors="replace").strip() == version.number()


def _named_files(config: ml_collections.ConfigDict) -> Iterator[str]:
    """Yields the files and folders that a config names, but for its data."""
    yield from config.plugins or ()
    for key, value in config_lib.flatten_config(config).items():
        last = key.rpartition(".")[2]
        if key == "data.dir" or last == _KIND_KEY:
            continue
        for text in value if isinstance(value, list | tuple) else [value]:
            if not isinstance(text, str) or text in ("", "package"):
                continue
            # Other than `pathlib`, this is False for a text that is no path at all.
            if last in _FILE_KEYS or os.path.exists(os.path.expanduser(text)):
                yield text


def _has_same_images(config: ml_collections.ConfigDict, path: pathlib.Path) -> bool:
    """Returns whether the images are those whose digests a run has saved."""
    try:
        saved_digests = checksums.unseal_json(files.read_json(path))
    except (OSError, ValueError):
        return False
    records = attach(create_run_relevance(config), create_records(config.data))
    return saved_digests == image_digest.digest_images(records)
