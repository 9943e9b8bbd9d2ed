"""Names of pretrained networks, which stand in the place of a model's folder."""

import importlib
import os
import pathlib

from deeprank_jax import version
from deeprank_jax.errors import ArtifactError, needs_extra

# Height and width of the images that each network was trained on, in pixels.
IMAGE_SIZES = {
    "efficientnet_lite0": 224,
    "efficientnet_lite1": 240,
    "efficientnet_lite2": 260,
}


def is_pretrained(model: str | os.PathLike[str]) -> bool:
    """Returns whether this is the name of a pretrained network, and of no folder."""
    return str(model) in IMAGE_SIZES and not pathlib.Path(model).exists()


def cached_folder(name: str) -> pathlib.Path:
    """Returns the folder that keeps a pretrained network between two uses.

    Args:
      name: Name of the network, one of `IMAGE_SIZES`.

    Raises:
      ArtifactError: The user's cache cannot be used.
    """
    return cache_folder() / "models" / f"{name}-{version.number()}"


def cache_folder() -> pathlib.Path:
    """Returns the folder of this package in the user's cache.

    Raises:
      ArtifactError: There is none, or it may not be entered.
    """
    try:
        cache = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        folder = pathlib.Path(cache) / "deeprank_jax"
        folder.exists()
    # The latter without HOME, for a user whom the system does not know.
    except (OSError, RuntimeError) as error:
        raise ArtifactError(
            f"The folder for caches cannot be used ({error}); set XDG_CACHE_HOME to a "
            "folder that you may write to."
        ) from error
    return folder


def check_export_is_installed() -> None:
    """Checks that this installation can export models, before it is imported.

    The modules that an export imports first belong to smaller extras.

    Raises:
      MissingExtraError: It lacks the extra `train`.
    """
    with needs_extra("train"):
        importlib.import_module("optax")
