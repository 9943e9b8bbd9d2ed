"""Image similarity by deep ranking, in JAX/Flax for GPU and TPU."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deeprank_jax.inference.model import Model


def load(path: str | os.PathLike[str]) -> "Model":
    """Reads an exported model, to embed and compare images with.

    Args:
      path: a folder that `deeprank export` wrote.

    Raises:
      ArtifactError: it is no exported model, or not as it was exported.
    """
    from deeprank_jax.distributed import backend

    # Before JAX starts, if it has not started yet.
    backend.configure_backend()
    from deeprank_jax.inference.model import Model

    return Model(path)
