"""Folders of installed packages, whose files datasets are prepared from."""

import importlib.util
import pathlib

from deeprank_jax import errors


def package_folder(module: str, package: str, extra: str) -> pathlib.Path:
    """Returns the folder of a package without importing it.

    Args:
      module: Name that the package is imported by.
      package: Name that the package is installed by.
      extra: Extra of this project that installs it.

    Raises:
      MissingExtraError: The package is not installed.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise errors.missing_extra(package, extra)
    return pathlib.Path(spec.submodule_search_locations[0])
