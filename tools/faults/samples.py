"""Samples that the kinds of faults share: images, a tiny run and its model."""

import functools
import pathlib

import cv2
import ml_collections
import numpy as np

from deeprank_jax.config import apply_overrides
from deeprank_jax.configs import base

_CONFIG = pathlib.Path(base.__file__)
# Classes enough for intervals on test.
_NUM_CLASSES, _NUM_IMAGES = 24, 3
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
_VALUES = {**VALUES, "model.whitening_power": 0.5}


def write_images(
    folder: pathlib.Path, *, num_classes: int = 3, num_images: int = 20, size: int = 24
) -> pathlib.Path:
    """Writes `folder/class/image.png`, a colour and a bar for each class.

    Args:
      folder: Folder for the classes, returned.
      num_classes: Number of classes.
      num_images: Number of images of each class.
      size: Side of the images in pixels.
    """
    rng = np.random.default_rng(0)
    for label in range(num_classes):
        place = folder / f"class {label:02d}"
        place.mkdir(parents=True)
        color = rng.integers(0, 256, 3)
        for number in range(num_images):
            noise = rng.integers(-20, 20, (size, size, 3))
            image = np.clip(color + noise, 0, 255).astype(np.uint8)
            row = (label * 3 + number % 3) % (size - 4)
            image[row : row + 4] = 255 - color
            cv2.imwrite(str(place / f"{number}.png"), image)
    return folder


class Samples:
    """Samples in a folder, each made when it is first used."""

    def __init__(self, folder: pathlib.Path):
        """Names the folder.

        Args:
          folder: Folder for the samples.
        """
        self.folder = folder

    @functools.cached_property
    def images(self) -> pathlib.Path:
        """Folder of images, with a folder for each class."""
        return write_images(
            self.folder / "photos", num_classes=_NUM_CLASSES, num_images=_NUM_IMAGES
        )

    @functools.cached_property
    def run(self) -> pathlib.Path:
        """Workdir of a finished run on the images."""
        from deeprank_jax.training import loop

        workdir = self.folder / "run"
        loop.train(self.config(), workdir, progress=lambda *state: None)
        return workdir

    @functools.cached_property
    def model(self) -> pathlib.Path:
        """Folder of the run's exported model."""
        from deeprank_jax.export import export_run

        # Validation has too few classes for a calibrated threshold.
        return export_run(self.run, self.folder / "model", force_threshold=True)

    def config(self, **values: object) -> ml_collections.ConfigDict:
        """Returns the config of a tiny run on the images.

        Args:
          **values: Further values by key.
        """
        config = base.get_config()
        config.data.dir = str(self.images)
        apply_overrides(
            config, [(key, repr(x)) for key, x in {**_VALUES, **values}.items()]
        )
        return config

    def overrides(self) -> list[str]:
        """Returns the same config as `KEY=VALUE` overrides of the base config."""
        return [f"{key}={x}" for key, x in {**_VALUES, "data.dir": self.images}.items()]

    def flags(self, workdir: pathlib.Path, **values: object) -> list[str]:
        """Returns the arguments of a training process with the same config.

        Args:
          workdir: Folder of the run.
          **values: Further values by key.
        """
        values = {**_VALUES, "data.dir": self.images, **values}
        flags = [f"--config.{name}={value}" for name, value in values.items()]
        return [f"--config={_CONFIG}", f"--workdir={workdir}", *flags]
