"""A run's network as one function of named weights and images, and its StableHLO."""

from collections.abc import Callable, Mapping
import pathlib
from typing import Any

import jax
from jax import export as jax_export
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from deeprank_jax import models
from deeprank_jax.training import checkpoints, network
from deeprank_jax.training import step as step_lib

# One program holds all three: which form of an operation it takes is chosen where it
# runs.
PLATFORMS = ("cpu", "cuda", "tpu")
# Of a classifier: no embedding depends on it.
_HEAD = "params/head/"

Weights = Mapping[str, Any]
Embed = Callable[[Weights, Any], Any]


def create_embed(
    config: ml_collections.ConfigDict, arrays: Weights, *, source: str
) -> tuple[Embed, dict[str, np.ndarray]]:
    """Returns `embed(weights, images [B, S, S, 3])` and its weights.

    Args:
      config: of the run.
      arrays: the network's, named as in a checkpoint; more may be there, as what of a
        classifier only tells classes.
      source: what errors call them.

    Raises:
      CheckpointError: variables of the config's network are missing, or have other
        shapes.
    """
    # Of a classifier, only what comes before the classes matters.
    num_classes = None if config.task == "ranking" else 1
    model = models.abstract(lambda: network.create_model(config, num_classes))
    graphdef, state = step_lib.create_train_state(model, optax.identity())
    ours = step_lib.network_arrays(state)
    weights = {}
    for name, array in ours.items():
        if name.startswith(_HEAD):
            continue
        found = arrays.get(name)
        if found is None or found.shape != array.shape:
            what = "is not there" if found is None else f"is {found.shape}"
            raise checkpoints.CheckpointError(
                f"{source} is of another network: {name} {what}, and the run's "
                f"config.json asks for {array.shape}; export a run whose files are its "
                "own."
            )
        weights[name] = np.asarray(found, array.dtype)
    embed_step = step_lib.make_embed_step(graphdef)

    def embed(weights: Weights, images: Any) -> Any:
        whole = {**ours, **weights}
        return embed_step(step_lib.with_network_arrays(state, whole), images)

    return embed, weights


def write_stablehlo(
    path: pathlib.Path, embed: Embed, weights: Weights, image_size: int
) -> None:
    """Writes the function for any number of images, on CPU, CUDA and TPU.

    It is called as `jax.export.deserialize(...).call(weights, images)`.
    """
    scope = jax_export.SymbolicScope()
    (batch,) = jax_export.symbolic_shape("batch", scope=scope)
    images = jax.ShapeDtypeStruct((batch, image_size, image_size, 3), jnp.uint8)
    shapes = {
        name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in weights.items()
    }
    exported = jax_export.export(jax.jit(embed), platforms=PLATFORMS)(shapes, images)
    path.write_bytes(exported.serialize())
