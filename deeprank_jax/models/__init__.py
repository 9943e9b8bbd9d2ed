"""Networks as NNX modules, created from a config by name."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flax import nnx
import jax.numpy as jnp

from deeprank_jax.models.convnet import ConvNet
from deeprank_jax.models.multiscale import MultiScale

TRUNKS: Mapping[str, Callable[..., nnx.Module]] = {"convnet": ConvNet}
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def create_model(
    *,
    trunk: Mapping[str, Any],
    image_size: int,
    embedding_dim: int,
    paths: Sequence[Mapping[str, int]] = (),
    dtype: str = "float32",
    axis_name: str | None = None,
    seed: int = 0,
) -> MultiScale:
    """Creates the network that a config describes.

    Args:
      trunk: `name`, one of `TRUNKS`, and that trunk's own options.
      image_size: height and width of the images, in pixels.
      embedding_dim: the length of an embedding.
      paths: options of each low-resolution path; none is the single-scale network.
      dtype: `"float32"` or `"bfloat16"`, what the layers compute in; parameters and
        embeddings are float32 either way.
      axis_name: the mapped axis over which BatchNorm averages, if any.
      seed: of the initial parameters.

    Raises:
      ValueError: no such trunk or dtype.
    """
    options = dict(trunk)
    name = options.pop("name")
    if name not in TRUNKS:
        raise ValueError(f"No trunk is named {name!r}; there are {sorted(TRUNKS)}.")
    if dtype not in DTYPES:
        raise ValueError(f"dtype is {dtype!r}; choose one of {sorted(DTYPES)}.")
    rngs = nnx.Rngs(seed)
    return MultiScale(
        TRUNKS[name](
            image_size=image_size,
            axis_name=axis_name,
            dtype=DTYPES[dtype],
            rngs=rngs,
            **options,
        ),
        image_size=image_size,
        embedding_dim=embedding_dim,
        paths=paths,
        dtype=DTYPES[dtype],
        rngs=rngs,
    )
