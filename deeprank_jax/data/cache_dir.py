"""The folder that caches what is slow to compute, beside the dataset."""

import pathlib

import ml_collections


def cache_dir(config: ml_collections.ConfigDict) -> pathlib.Path | None:
    """Returns the folder beside the dataset that keeps what took long to compute."""
    if not config.data.dir:
        return None
    path = pathlib.Path(config.data.dir).expanduser()
    return (path if path.is_dir() else path.parent) / ".deeprank_cache"
