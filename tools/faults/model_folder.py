"""Damaged folder of an exported model."""

import json
import pathlib

import numpy as np

import deeprank_jax
from deeprank_jax.experiments.evaluate import load_model
from tools.faults.samples import Samples
from tools.faults.stored import Stored, digest

_IMAGES = np.arange(2 * 16 * 16 * 3, dtype=np.uint8).reshape(2, 16, 16, 3)


class ModelFolder(Stored):
    """Files of an exported model."""

    def create(self, samples: Samples, folder: pathlib.Path) -> None:
        """Copies the sample's model."""
        for path in samples.model.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())

    def read(self, folder: pathlib.Path) -> object:
        """Returns embeddings and properties of the model, and its config."""
        model = deeprank_jax.load(folder)
        network = load_model(folder)
        info = json.dumps(model.artifact.info, sort_keys=True)
        return digest(model.embed(_IMAGES)), info, network.config.to_json_best_effort()
