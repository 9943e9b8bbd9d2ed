"""Image similarity by deep ranking, in JAX/Flax for GPU and TPU.

  model = deeprank_jax.load("models/photos")
  model.compare("a.jpg", "b.jpg")
  model.search("query.jpg", "photos", k=5)

Everything else is imported at first use, so that `import deeprank_jax` takes no time
and flags of XLA are set before JAX starts.
"""

import importlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str

    from deeprank_jax.data import register_source as register_source
    from deeprank_jax.inference.index import Index as Index
    from deeprank_jax.inference.model import Model as Model
    from deeprank_jax.inference.results import Comparison as Comparison
    from deeprank_jax.inference.results import EmbeddedImages as EmbeddedImages
    from deeprank_jax.inference.results import Hit as Hit
    from deeprank_jax.inference.results import ImageGroup as ImageGroup
    from deeprank_jax.inference.results import ImageGroups as ImageGroups
    from deeprank_jax.inference.results import SearchResult as SearchResult
    from deeprank_jax.losses import register_loss as register_loss
    from deeprank_jax.losses import register_miner as register_miner
    from deeprank_jax.models import register_trunk as register_trunk
    from deeprank_jax.relevance import register as register_relevance
    from deeprank_jax.training.tasks import register_task as register_task
    from deeprank_jax.training.train import TrainingResult as TrainingResult
    from deeprank_jax.training.train import train as train

_LAZY = {
    "Comparison": "deeprank_jax.inference.results:Comparison",
    "EmbeddedImages": "deeprank_jax.inference.results:EmbeddedImages",
    "Hit": "deeprank_jax.inference.results:Hit",
    "ImageGroup": "deeprank_jax.inference.results:ImageGroup",
    "ImageGroups": "deeprank_jax.inference.results:ImageGroups",
    "Index": "deeprank_jax.inference.index:Index",
    "Model": "deeprank_jax.inference.model:Model",
    "SearchResult": "deeprank_jax.inference.results:SearchResult",
    "TrainingResult": "deeprank_jax.training.train:TrainingResult",
    "register_loss": "deeprank_jax.losses:register_loss",
    "register_miner": "deeprank_jax.losses:register_miner",
    "register_relevance": "deeprank_jax.relevance:register",
    "register_source": "deeprank_jax.data:register_source",
    "register_task": "deeprank_jax.training.tasks:register_task",
    "register_trunk": "deeprank_jax.models:register_trunk",
    "train": "deeprank_jax.training.train:train",
}

__all__ = [
    "Comparison",
    "EmbeddedImages",
    "Hit",
    "ImageGroup",
    "ImageGroups",
    "Index",
    "Model",
    "SearchResult",
    "TrainingResult",
    "__version__",
    "load",
    "register_loss",
    "register_miner",
    "register_relevance",
    "register_source",
    "register_task",
    "register_trunk",
    "train",
]


def load(path: str | os.PathLike[str]) -> "Model":
    """Reads an exported model.

    Args:
      path: Folder written by `deeprank export`.

    Raises:
      ArtifactError: The folder is not an exported model, or a file is damaged.
    """
    _configure()
    from deeprank_jax.inference.model import Model

    return Model(path)


def _configure() -> None:
    """Sets the flags of XLA, unless JAX has started already."""
    from deeprank_jax.distributed import backend

    backend.configure_backend()


def __getattr__(name: str) -> object:
    """Imports a public name at its first use."""
    if name == "__version__":
        from deeprank_jax import version

        return version.number()
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _configure()
    module, _, attribute = _LAZY[name].partition(":")
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Returns the public names."""
    return sorted(__all__)
