"""Image similarity by deep ranking, in JAX/Flax for GPU and TPU."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deeprank_jax.gallery.model import Model


def load(path: str | os.PathLike[str]) -> "Model":
    """Reads an exported model, to embed and compare images with.

    Args:
      path: a folder that `deeprank export` wrote.

    Raises:
      ArtifactError: it is no exported model, or not as it was exported.
    """
    from deeprank_jax import parallel

    # Before JAX starts, if it has not started yet.
    parallel.configure_backend()
    from deeprank_jax.gallery.model import Model

    return Model(path)
