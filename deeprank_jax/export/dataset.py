"""Description of a run's images for `model.json`, and their changes since the run."""

import pathlib
from typing import Any

from absl import logging
import ml_collections
import numpy as np

from deeprank_jax import logs, registry
from deeprank_jax.data import dataset_name, splits
from deeprank_jax.data.records import Records
from deeprank_jax.training import image_digest
from deeprank_jax.training.workdir import Workdir

# Longest name of a class in the card.
_MAX_NAME = 40


def describe_dataset(
    config: ml_collections.ConfigDict,
    records: dict[str, Records],
    workdir: pathlib.Path,
) -> dict[str, Any]:
    """Returns the entry of model.json about the images of a run.

    Args:
      config: Config of the run.
      records: Records of each split.
      workdir: Folder of the run, which tells if images have changed since.
    """
    return {
        "name": dataset_name(config.data),
        **{f"{name}_images": len(split) for name, split in records.items()},
        "seen_classes": splits.find_seen_classes(records),
        "classes": _describe_classes(records["train"]),
        "changed": _find_changes(workdir, records),
    }


def _describe_classes(records: Records) -> str:
    """Returns the number of a split's classes, and the names of the first."""
    numbers = np.unique(records.labels[:, -1]).tolist()
    names = [logs.escaped(records.label_names[-1][i]) for i in numbers]
    names = [
        name if len(name) <= _MAX_NAME else f"{name[:_MAX_NAME]}…" for name in names
    ]
    return f"{len(names):,}: {registry.list_names(names)}"


def _find_changes(workdir: pathlib.Path, records: dict[str, Records]) -> list[str]:
    """Returns the splits whose images are not those of the run, and warns of them."""
    digests = image_digest.digest_images(records)
    changed = image_digest.changed_splits(Workdir(workdir).images, digests)
    if changed:
        logging.warning(
            "The images of %s are not those of the run: the threshold and the "
            "distances are of the images now, the metrics are those of the run. Give "
            "back the images, or train again.",
            " and ".join(changed),
        )
    return changed
