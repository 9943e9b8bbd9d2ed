"""Records from TFDS, a folder or a manifest, and their images as arrays."""

from collections.abc import Callable
from typing import Any

from deeprank_jax import errors
from deeprank_jax.data.records import Records
from deeprank_jax.data.sources import folder, manifest

_FROM_FILES: dict[str, Callable[[str], dict[str, Records]]] = {
    "folder": folder.create_records,
    "manifest": manifest.create_records,
}


def create_records(config: Any) -> dict[str, Records]:
    """Returns the records that `config.data` names.

    Args:
      config: `name` (`"emoji"`, `"folder"`, `"manifest"` or what TFDS knows), `dir`
        (the folder, the manifest, or where TFDS keeps its datasets), and for TFDS
        `levels`, `columns`, `image_feature`, `name_feature` and `split_by`.

    Returns:
      The records of `"train"`, `"validation"` and `"test"`.

    Raises:
      DataError: the data cannot be used as given.
    """
    if config.name not in _FROM_FILES:
        # TFDS is slow to import, and own images do not need it.
        from deeprank_jax.data.sources import tfds

        return tfds.create_records(
            config.name,
            config.dir,
            levels=tuple(config.levels),
            columns=tuple(config.columns),
            image_feature=config.image_feature,
            name_feature=config.name_feature,
            split_by=config.split_by,
        )
    if not config.dir:
        raise errors.DataError(
            f"config.data.dir is not set; pass --config.data.dir=PATH, the path of "
            f"the {config.name}."
        )
    return _FROM_FILES[config.name](config.dir)
