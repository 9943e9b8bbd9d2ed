"""Real runs made small: the flags and configs of tests that train."""

import cv2
import ml_collections
import numpy as np

from deeprank_jax.config import apply_overrides
from deeprank_jax.configs import base

# A few seconds of training on a few dozen images.
VALUES = {
    "num_steps": 8,
    "batch_size": 8,
    "data.image_size": 16,
    "model.trunk.widths": (4, 8),
    "model.embedding_dim": 8,
    "schedule.warmup_steps": 2,
    "log_every": 2,
    "eval_every": 4,
    "checkpoint_every": 2,
    "evaluation.batch_size": 32,
    "evaluation.evaluators.triplets.num": 50,
}


# Of trunks other than the convnet: options, and the least image they take.
TRUNKS = {
    "alexnet": (dict(widths=(4, 8, 8, 8, 8), fc_dim=16), 63),
    "vgg16": (dict(fc_dim=16), 32),
    "efficientnet_lite0": ({}, 32),
}


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
    return config


def create_config(images, **values):
    """Returns a small run's config of a folder of images, with other values by key."""
    return shrink(base.get_config(), **{"data.dir": str(images), **values})


def flags(**values):
    """Returns the same as command-line flags, for a network from random weights."""
    values = {"model.trunk.name": "convnet", "model.weights": "", **VALUES, **values}
    return [f"--config.{name}={value}" for name, value in values.items()]


def write_images(directory, *, num_classes=3, num_images=20, size=24):
    """Writes `directory/class/image.png`: a colour and a bar for each class."""
    rng = np.random.default_rng(0)
    for label in range(num_classes):
        folder = directory / f"class {label:02d}"
        folder.mkdir(parents=True)
        color = rng.integers(0, 256, 3)
        for number in range(num_images):
            noise = rng.integers(-20, 20, (size, size, 3))
            image = np.clip(color + noise, 0, 255).astype(np.uint8)
            row = (label * 3 + number % 3) % (size - 4)
            image[row : row + 4] = 255 - color
            cv2.imwrite(str(folder / f"{number}.png"), image)
    return directory
