"""Records from a folder, a manifest or TFDS, and their images as arrays."""

from collections.abc import Mapping
import inspect

import ml_collections

from deeprank_jax import errors
from deeprank_jax.data.records import Records
from deeprank_jax.data.sources import SOURCES, register_source

__all__ = [
    "SOURCES",
    "Records",
    "create_records",
    "dataset_name",
    "register_source",
    "select_split",
]


def create_records(config: ml_collections.ConfigDict) -> dict[str, Records]:
    """Creates the records selected by `config.data`.

    Args:
      config: `config.data`.

    Returns:
      The records of `"train"`, `"validation"` and `"test"`.

    Raises:
      ConfigError: The source or one of its options is not known, or has a value that
        the data does not allow.
      DataError: The data cannot be used.
    """
    source = config.source.to_dict()
    SOURCES.check(source, ("directory",))
    name = str(source["name"])
    directory = SOURCES.options(name).get("directory")
    if directory is inspect.Parameter.empty and not config.dir:
        raise errors.ConfigError(
            f"config.data.dir is not set; pass --config.data.dir=PATH, the path of the "
            f"{name}."
        )
    return SOURCES.create(source, directory=config.dir)


def select_split(splits: Mapping[str, Records], name: str) -> Records:
    """Returns the records of a split.

    Args:
      splits: Records by split.
      name: Name of the split.

    Raises:
      DataError: There is no such split, e.g. no test split.
    """
    if name not in splits:
        raise errors.DataError(
            f"The data have no {name} split; they have {', '.join(splits)}."
        )
    return splits[name]


def dataset_name(config: ml_collections.ConfigDict) -> str:
    """Returns the name of the TFDS dataset, or of the source if it is another."""
    return str(config.source.get("dataset", config.source.name))
