"""Values of a config that are chosen from the data: image size, groups and steps.

Keys that are None take a value that suits the number, classes and size of the training
images. A run keeps the values that it began with.
"""

from collections.abc import Mapping
import pathlib
from typing import Any

from absl import logging
import jax
import ml_collections
import numpy as np

from deeprank_jax import config as config_lib
from deeprank_jax import losses
from deeprank_jax.data import create_records, decode
from deeprank_jax.data.records import Records
from deeprank_jax.distributed import processes
from deeprank_jax.errors import DataError
from deeprank_jax.sampling import create
from deeprank_jax.training import tasks

_KEYS = (
    "data.image_size",
    "sampler.positives_per_anchor",
    "batch_size",
    "num_steps",
    "eval_every",
)
# Sides of the network's input, in pixels: multiples of the stride of most networks, up
# to the size at which most were trained.
_SIDE_STEP, _LEAST_SIDE, _LARGEST_SIDE = 32, 96, 224
_NUM_MEASURED = 64
# Images of a batch, and of one whose images are larger than the first side.
_LARGE_SIDE, _BATCH_IMAGES, _BATCH_LARGE_IMAGES = 128, 64, 32
_MOST_POSITIVES = 3
_NUM_EPOCHS, _LEAST_STEPS, _MOST_STEPS = 10, 200, 1000
_NUM_VALIDATIONS = 10


def fit_to_data(
    config: ml_collections.ConfigDict, saved: pathlib.Path | None = None
) -> ml_collections.ConfigDict:
    """Returns the config with values in the place of keys that are None.

    The image's side is the median of the shorter sides, rounded up to 32 pixels, from
    96 to 224. A group has at most 4 images, and no more than half of the classes have.
    A batch has about 64 images, or 32 of more than 128 pixels, and no more than there
    are. Steps are 10 epochs, from 200 to 1,000, with 10 validations; an epoch has as
    many images as there are, or as many groups as the task counts.

    Args:
      config: Whole configuration.
      saved: Path of the run's saved config, whose values are kept; None or a missing
        file for a new run.

    Raises:
      ConfigError: The config of the data cannot be used.
      DataError: The data cannot be used.
    """
    flat = config_lib.flatten_config(config)
    missing = [key for key in _KEYS if key in flat and flat[key] is None]
    if not missing:
        return config
    resolved = config.copy_and_resolve_references()
    if saved is not None and saved.is_file():
        before = config_lib.flatten_config(config_lib.read_run_config(saved.parent))
        chosen = {key: before[key] for key in missing if before.get(key) is not None}
        resolved.update_from_flattened_dict(chosen)
        missing = [key for key in missing if key not in chosen]
    if missing:
        with processes.first_alone():  # The others find the prepared files.
            splits = create_records(config.data)
        records = splits["train"]
        for key in missing:  # In order: some follow from those before.
            value = _choose(key, resolved, splits)
            resolved.update_from_flattened_dict({key: value})
        logging.info(
            "Chosen for %s training images: %s.",
            f"{len(records):,}",
            ", ".join(f"{key} {_value(resolved, key)}" for key in missing),
        )
    return resolved


def _choose(
    key: str, config: ml_collections.ConfigDict, splits: Mapping[str, Records]
) -> int:
    """Returns the value of a key that is None."""
    records, task = splits["train"], tasks.TASKS[config.task.name]
    if key == "data.image_size":
        return _choose_side(records, config.data.max_pixels)
    if key == "sampler.positives_per_anchor":
        _, counts = np.unique(records.labels[:, -1], return_counts=True)
        typical = np.median(counts[counts > 1]) if np.any(counts > 1) else 2
        return int(np.clip(typical - 1, 1, _MOST_POSITIVES))
    group = getattr(task, "images_per_group", 1)
    if getattr(task, "draws_triplets", True):
        group += sum(create.group_size(config).values())
    elif config.loss.name in losses.LOSSES:
        group = getattr(losses.LOSSES[config.loss.name], "num_views", group)
    if key == "batch_size":
        is_large = config.data.image_size > _LARGE_SIDE
        images = _BATCH_LARGE_IMAGES if is_large else _BATCH_IMAGES
        num_groups = max(2, min(images, len(records)) // group)
        return -(-num_groups // jax.device_count()) * jax.device_count()
    if key == "num_steps":
        count_groups = getattr(task, "count_groups", None)
        num_groups = count_groups(config, splits) if count_groups else None
        epoch = (num_groups or len(records) / group) / config.batch_size
        return int(np.clip(round(_NUM_EPOCHS * epoch), _LEAST_STEPS, _MOST_STEPS))
    return max(1, config.num_steps // _NUM_VALIDATIONS)


def _choose_side(records: Records, max_pixels: int) -> int:
    """Returns the side of the network's input for images of these sizes."""
    sides = []
    for index in np.linspace(0, len(records) - 1, _NUM_MEASURED).astype(int):
        try:
            image = records.read(int(index))
            size = (
                decode.read_size(image, max_pixels)
                if isinstance(image, bytes)
                else image.shape[:2]
            )
        except (OSError, decode.BadImageError):
            continue  # Reported when training reads it.
        sides.append(min(size))
    if not sides:
        raise DataError(
            f"{records.name}: no image can be read, among them {records.describe(0)}; "
            "set config.data.image_size, or give other images."
        )
    steps = -(-float(np.median(sides)) // _SIDE_STEP)
    return int(np.clip(steps * _SIDE_STEP, _LEAST_SIDE, _LARGEST_SIDE))


def _value(config: ml_collections.ConfigDict, key: str) -> Any:
    return config_lib.flatten_config(config)[key]
