"""Real runs made small: the flags and configs of tests that train."""

import itertools

import cv2
import ml_collections
import numpy as np

from deeprank_jax import data
from deeprank_jax.config import apply_overrides
from deeprank_jax.configs import base
from deeprank_jax.relevance.vectors import write_vectors
from deeprank_jax.sampling import pair_file
from tools.faults.samples import VALUES
from tools.faults.samples import write_images as write_images

# Of trunks other than the convnet: options, and the least image they take.
TRUNKS = {
    "alexnet": (dict(widths=(4, 8, 8, 8, 8), fc_dim=16), 63),
    "vgg16": (dict(fc_dim=16), 32),
    "efficientnet_lite0": ({}, 32),
}
# A small network beside the first.
OTHER = dict(trunk=dict(name="convnet", widths=(4, 8)), embedding_dim=6)


def write_teacher(path, images, *, seed=0, left_out=0):
    """Writes random vectors of images, named relative to their folder.

    Returns:
      The directions of the vectors, and the names.
    """
    names = sorted(str(p.relative_to(images)) for p in images.rglob("*.png"))
    names = names[left_out:]
    values = np.random.default_rng(seed).normal(size=(len(names), 7))
    write_vectors(path, names, values, {})
    return values / np.linalg.norm(values, axis=1, keepdims=True), names


def write_pairs(path, config):
    """Writes pairs of the first images of each split, half of them similar."""
    splits = data.create_records(config.data).values()
    indices = [np.array([*itertools.combinations(range(12), 2)]) for _ in splits]
    kinds = [np.arange(len(pairs)) % 2 == 1 for pairs in indices]
    pair_file.write_pairs(path, [*splits], indices, kinds)
    return str(path)


def write_large_images(folder, *, tile=32):
    """Writes images of which each is wide enough for tiles of all splits."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(2):
        pixels = rng.integers(0, 256, (3 * tile, 15 * tile, 3)).astype(np.uint8)
        cv2.imwrite(str(folder / f"{i}.png"), pixels)
    return folder


def shrink(config: ml_collections.ConfigDict, **values):
    """Returns the config with the sizes of a test."""
    values = {**VALUES, **values}
    if (name := config.model.trunk.name) in TRUNKS:
        options, values["data.image_size"] = TRUNKS[name]
        del values["model.trunk.widths"]
        config.model.trunk = dict(name=name, **options)
    apply_overrides(
        config,
        [(key, x if isinstance(x, str) else repr(x)) for key, x in values.items()],
    )
    config.model.paths = (
        dict(subsample=2, kernel=3, stride=2, width=4, pool=3, pool_stride=2),
    )
    config.model.ensemble = (OTHER,) * len(config.model.ensemble)
    return config


def create_config(images, **values):
    """Returns a small run's config of a folder of images, with other values by key."""
    return shrink(base.get_config(), **{"data.dir": str(images), **values})


def flags(**values):
    """Returns the same as command-line flags, for a network from random weights."""
    values = {"model.trunk.name": "convnet", "model.weights": "", **VALUES, **values}
    return [f"--config.{name}={value}" for name, value in values.items()]
