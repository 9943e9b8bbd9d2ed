"""Familiarity of images: whether they lie near those that a model was trained on.

An image of another kind is mapped to some place among the others, and something is
nearest to it. Its distance to the nearest training image is compared with the distances
of validation images, on which the model's thresholds were calibrated.

References:
  Sun et al., Out-of-Distribution Detection with Deep Nearest Neighbors, 2022,
  https://arxiv.org/abs/2204.06507.
"""

from collections.abc import Mapping
import pathlib
from typing import Any

import numpy as np
import safetensors.numpy

from deeprank_jax.errors import ArtifactError

FILE = "reference.safetensors"
# Share of validation images that count as familiar.
SHARE = 0.99
# Fewer validation images do not support the quantile.
MIN_IMAGES = 30
NUM_REFERENCES = 512


def nearest_distances(rows: np.ndarray, references: np.ndarray) -> np.ndarray:
    """Returns `[N]`, the squared distance of each row to the nearest reference.

    Args:
      rows: `[N, D]` embeddings.
      references: `[M, D]` embeddings, at least one.
    """
    rows, references = rows.astype(np.float64), references.astype(np.float64)
    squares = np.sum(np.square(rows), 1)[:, None] + np.sum(np.square(references), 1)
    return np.maximum(squares - 2.0 * rows @ references.T, 0.0).min(axis=1)


def write_references(
    folder: pathlib.Path, references: np.ndarray, validation: np.ndarray
) -> dict[str, Any] | None:
    """Writes the embeddings of training images, and returns the entry of `model.json`.

    Args:
      folder: Folder of the model.
      references: `[M, D]` float32 embeddings of training images.
      validation: `[N, D]` embeddings of validation images.

    Returns:
      The largest distance of a familiar image, and the numbers of images; None, with
      nothing written, if there are too few images to tell.
    """
    if not len(references) or len(validation) < MIN_IMAGES:
        return None
    safetensors.numpy.save_file({"embeddings": references}, folder / FILE)
    # As the weights, for more than their owner.
    (folder / FILE).chmod(0o644)
    distances = nearest_distances(validation, references)
    return {
        "distance": float(np.quantile(distances, SHARE)),
        "images": len(references),
        "validation_images": len(validation),
    }


class Familiarity:
    """Tells whether images are familiar to a model.

    Attributes:
      distance: Largest squared distance of a familiar image to a training image.
    """

    def __init__(self, path: pathlib.Path, entry: Mapping[str, Any], dim: int):
        """Reads the embeddings of training images.

        Args:
          path: File with the embeddings.
          entry: Entry of `model.json`, see `write_references`.
          dim: Number of dimensions of an embedding.

        Raises:
          ArtifactError: The file is not what it should be.
        """
        self.distance: float = entry["distance"]
        try:
            self._references = safetensors.numpy.load_file(path)["embeddings"]
        # A type that NumPy lacks raises any error.
        except Exception as error:
            raise ArtifactError(
                f"{path} cannot be read ({error!s:.200}); copy the whole folder again."
            ) from error
        shape = self._references.shape
        is_right = len(shape) == 2 and shape[0] > 0 and shape[1] == dim
        if not is_right or not np.isfinite(self._references).all():
            raise ArtifactError(
                f"{path} holds no finite embeddings of {dim} dimensions; export the "
                "run again."
            )

    def is_unfamiliar(self, rows: np.ndarray) -> np.ndarray:
        """Returns `[N]` bool, True for rows that are far from all training images.

        Args:
          rows: `[N, D]` embeddings.
        """
        return nearest_distances(rows, self._references) > self.distance
