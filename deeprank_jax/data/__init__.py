"""Records from a folder, a manifest or TFDS, and their images as arrays."""

import inspect
from typing import Any

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
    "source_section",
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
    source = source_section(config)
    SOURCES.check(source, ("directory",))
    name = str(source["name"])
    directory = SOURCES.options(name).get("directory")
    if directory is inspect.Parameter.empty and not config.dir:
        raise errors.ConfigError(
            f"config.data.dir is not set; pass --config.data.dir=PATH, the path of the "
            f"{name}."
        )
    return SOURCES.create(source, directory=config.dir)


def dataset_name(config: ml_collections.ConfigDict) -> str:
    """Returns the name of the TFDS dataset, or of the source if it is another."""
    source = source_section(config)
    return str(source.get("dataset", source["name"]))


def source_section(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns `config.source` as a plain dict: `name` and the options."""
    if "source" in config:
        return config.source.to_dict()
    if config.name in ("folder", "manifest"):
        return {"name": config.name}
    options = ("levels", "columns", "name_feature", "split_by")
    source = {key: config[key] for key in options}
    if config.name == "emoji":
        return {"name": "emoji"} | source
    source["image_feature"] = config.image_feature
    return {"name": "tfds", "dataset": config.name} | source
