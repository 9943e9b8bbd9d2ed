"""Cache folder beside the dataset."""

import pathlib

import ml_collections


def cache_dir(config: ml_collections.ConfigDict) -> pathlib.Path | None:
    """Returns the folder for cached results, None without `config.data.dir`."""
    if not config.data.dir:
        return None
    path = pathlib.Path(config.data.dir).expanduser()
    return (path if path.is_dir() else path.parent) / ".deeprank_cache"
