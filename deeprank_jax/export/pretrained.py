"""Export of a network with ImageNet weights, without any training."""

import os
import pathlib
import time

from absl import logging
import ml_collections
import numpy as np

from deeprank_jax import config as config_lib
from deeprank_jax import version
from deeprank_jax.config import loading
from deeprank_jax.data import decode
from deeprank_jax.errors import ArtifactError, ExportError
from deeprank_jax.export import copies, generated_images, network, verification
from deeprank_jax.export.run import describe_network, write_description, write_network
from deeprank_jax.files import locks
from deeprank_jax.inference import artifact, pretrained, program
from deeprank_jax.training import experiment, tasks
from deeprank_jax.training import network as network_lib
from deeprank_jax.training import step as step_lib

_NUM_VERIFIED, _NUM_COPIED = 16, 128
# Time between two tries to write a folder that another process is writing.
_POLL_SECONDS = 1.0


def export_pretrained(
    name: str, out: str | os.PathLike[str], *, hub_license: str | None = None
) -> pathlib.Path:
    """Exports a pretrained network as a model, whose embedding are its features.

    It has no threshold of similar images, since it has seen none of the user's classes.

    Args:
      name: Name of the network, one of `inference.pretrained.IMAGE_SIZES`.
      out: Folder to write, atomically.
      hub_license: Licence for the YAML of model hubs; None for a card without it.

    Returns:
      The folder.

    Raises:
      ArtifactError: `out` exists already, or cannot be written.
      ConfigError: The package with the weights is not installed.
      ExportError: There is no such network, or a form differs from the network.
    """
    if name not in pretrained.IMAGE_SIZES:
        raise ExportError(
            f"{name} is not a pretrained network; choose one of "
            f"{', '.join(pretrained.IMAGE_SIZES)}."
        )
    config = create_config(name)
    task = tasks.create_task(config, experiment.create_run_relevance(config))
    state = network_lib.create_network(config, task.create_model)[2]
    arrays = {key: np.asarray(x) for key, x in step_lib.network_arrays(state).items()}
    embed, weights = network.create_embed(config, arrays, source=name)
    embed_batches = network.make_embed_batches(embed, weights)
    size, fit = config.data.image_size, config.data.fit
    prepare = lambda image: decode.resize_image(image, size, fit)
    with artifact.writing(out) as folder:
        write_network(folder, config, embed, weights)
        images = generated_images.draw_images(_NUM_COPIED)
        verified = np.stack([prepare(image) for image in images[:_NUM_VERIFIED]])
        info = {
            "format": artifact.FORMAT,
            "name": name,
            **describe_network(config, folder),
            "whitened": False,
            "threshold": None,
            "no_threshold": "a pretrained network has seen none of your classes",
            "cluster_distance": None,
            "copies": copies.measure_copies(images, prepare, embed_batches),
            "agreement": verification.verify(folder, verified, embed_batches(verified)),
            "metrics": {},
            "dataset": {"name": "ImageNet", "train_images": 1_281_167},
            "checkpoint_step": None,
            "parameters": sum(x.size for x in weights.values()),
            "commit": version.commit(),
        }
        # The name is understood in the place of the folder.
        write_description(folder, info, config, name, hub_license)
    program.trust(pathlib.Path(out).expanduser())
    return pathlib.Path(out)


def create_config(name: str) -> ml_collections.ConfigDict:
    """Returns the config of a pretrained network, the features of its trunk.

    Args:
      name: Name of the network.
    """
    config = config_lib.load_config(str(loading.config_folder() / "base.py"))
    config.unlock()
    config.task = dict(name="classification")
    config.loss = dict(name="cross_entropy")
    config.model.trunk = dict(name=name)
    config.model.weights = "package"
    config.model.paths = ()
    config.data.image_size = pretrained.IMAGE_SIZES[name]
    return config


def model_folder(model: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the folder of a model, which may be the name of a pretrained network.

    Its first use exports the network into the user's cache; that takes a minute at
    most.

    Args:
      model: Folder of a model, or a name of `inference.pretrained.IMAGE_SIZES`.

    Raises:
      ArtifactError: The cache cannot be written.
      ConfigError: The package with the weights is not installed.
    """
    if not pretrained.is_pretrained(model):
        return pathlib.Path(model)
    folder = pretrained.cached_folder(str(model))
    while not folder.is_dir():
        logging.info("Exporting %s to %s, once.", model, folder)
        try:
            export_pretrained(str(model), folder)
        except locks.LockedError:
            time.sleep(_POLL_SECONDS)  # Until the other process has written it.
        except ArtifactError:
            if not folder.is_dir():  # Else another process has just written it.
                raise
    try:
        artifact.read_artifact(folder)
    except ArtifactError as error:
        raise ArtifactError(
            f"{error} This one is a cache: delete {folder}, and the next use writes it "
            "again."
        ) from error
    return folder
