"""A run's network as one function of named weights and images, and its StableHLO."""

from collections.abc import Callable, Mapping
import pathlib
from typing import Any

import jax
from jax import export as jax_export
import jax.numpy as jnp
import ml_collections
import numpy as np

from deeprank_jax import models
from deeprank_jax.errors import CheckpointError, needs_extra
from deeprank_jax.training import experiment, tasks
from deeprank_jax.training import step as step_lib

with needs_extra("train"):
    import optax

# One program holds all three; it chooses the form of an operation where it runs.
PLATFORMS = ("cpu", "cuda", "tpu")
BATCH_SIZE = 64
# Head of a classifier or of projections, or decoder; embeddings do not depend on it.
_HEAD = tuple(
    f"{part}/{module}/"
    for part in ("params", "model_state")
    for module in ("head", "decoder")
)

# Arrays of JAX or NumPy.
Weights = Mapping[str, Any]
Embed = Callable[[Weights, Any], jax.Array]


def create_embed(
    config: ml_collections.ConfigDict, arrays: Weights, *, source: str
) -> tuple[Embed, dict[str, np.ndarray]]:
    """Returns `embed(weights, images [B, S, S, 3])` and its weights.

    Args:
      config: Config of the run.
      arrays: Arrays of the network, named as in a checkpoint; others, such as those of
        a classification head, are ignored.
      source: Name of the arrays in error messages.

    Raises:
      CheckpointError: Arrays of the config's network are missing, or have other shapes.
    """
    relevance = experiment.create_run_relevance(config)
    model = models.create_abstract(tasks.create_task(config, relevance).create_model)
    graphdef, state = step_lib.create_train_state(model, optax.identity())
    expected = step_lib.network_arrays(state)
    weights = {}
    for name, array in expected.items():
        if name.startswith(_HEAD):
            continue
        saved = arrays.get(name)
        if saved is None or saved.shape != array.shape:
            actual = "is missing" if saved is None else f"has the shape {saved.shape}"
            raise CheckpointError(
                f"{source} belongs to another network: {name} {actual}, and the run's "
                f"config.json needs {array.shape}; export a run with its own "
                "config.json and checkpoints."
            )
        weights[name] = np.asarray(saved, array.dtype)
    embed_step = step_lib.make_embed_step(graphdef)

    def embed(weights: Weights, images: Any) -> jax.Array:
        complete = {**expected, **weights}
        return embed_step(step_lib.with_network_arrays(state, complete), images)

    return embed, weights


def make_embed_batches(
    embed: Embed, weights: Weights
) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function from uint8 images `[N, S, S, 3]` to embeddings `[N, D]`.

    It embeds batches of one shape, which are compiled once.

    Args:
      embed: Function of the weights and images.
      weights: Weights by name.
    """
    compiled, on_device = jax.jit(embed), jax.device_put(dict(weights))

    def embed_batches(images: np.ndarray) -> np.ndarray:
        pieces = []
        for start in range(0, len(images), BATCH_SIZE):
            batch = images[start : start + BATCH_SIZE]
            padding = ((0, BATCH_SIZE - len(batch)), *((0, 0),) * 3)
            embedded = compiled(on_device, np.pad(batch, padding))
            pieces.append(np.asarray(embedded)[: len(batch)])
        return np.concatenate(pieces)

    return embed_batches


def write_stablehlo(
    path: pathlib.Path, embed: Embed, weights: Weights, image_size: int
) -> None:
    """Writes the function for any number of images, on CPU, CUDA and TPU.

    It is called as `jax.export.deserialize(...).call(weights, images)`.

    Args:
      path: Path of the program.
      embed: Function of the weights and images.
      weights: Weights, whose shapes the program takes.
      image_size: Height and width of the images, in pixels.
    """
    scope = jax_export.SymbolicScope()
    (batch,) = jax_export.symbolic_shape("batch", scope=scope)
    images = jax.ShapeDtypeStruct((batch, image_size, image_size, 3), jnp.uint8)
    shapes = {
        name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in weights.items()
    }
    exported = jax_export.export(jax.jit(embed), platforms=PLATFORMS)(shapes, images)
    path.write_bytes(exported.serialize())


def without_folders(value: Any) -> Any:
    """Returns a config's value with the name alone of each file or folder in it.

    A path is of this computer, and may tell the name of its user. A model in use reads
    none of these files.

    Args:
      value: Section, list or value of the config.
    """
    if isinstance(value, dict):
        return {key: without_folders(part) for key, part in value.items()}
    if isinstance(value, list):
        return [without_folders(part) for part in value]
    if isinstance(value, str) and value.startswith(("/", "~")):
        return pathlib.PurePath(value).name
    return value
