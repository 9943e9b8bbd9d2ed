"""Files of trained similarities, `.npz`: parameters, kind, options and origin.

The entry `about` is a JSON object with its own checksum, which holds the checksum of
each array.
"""

from collections.abc import Mapping
import dataclasses
import hashlib
import json
import os
import pathlib
from typing import Any

import numpy as np

from deeprank_jax import checksums, files
from deeprank_jax.errors import ArtifactError, ConfigError
from deeprank_jax.similarities import SIMILARITIES, create_learned
from deeprank_jax.similarities.base import LearnedSimilarity, Metrics

SUFFIX = ".npz"
_ABOUT, _FORMAT = "about", 1
# Entries of the description and their types.
_TYPES = {
    "kind": str, "options": dict, "model": str, "dim": int, "seed": int,
    "metrics": dict, "arrays": dict,
}  # fmt: skip
_REMEDY = "train it again by `deeprank train-similarity`"


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoredSimilarity:
    """A trained similarity and its origin.

    Attributes:
      similarity: Trained similarity.
      kind: Name of its kind.
      options: Options that it was created with.
      model: Fingerprint of the model of the embeddings.
      dim: Number of dimensions D of an embedding.
      seed: Seed of the training.
      metrics: Metrics of the training.
    """

    similarity: LearnedSimilarity
    kind: str
    options: Mapping[str, Any]
    model: str
    dim: int
    seed: int
    metrics: Metrics

    def check_model(self, name: str, fingerprint: str, dim: int) -> None:
        """Checks that embeddings are of the model that it was trained for.

        Args:
          name: Name of the similarity in a message, e.g. its file.
          fingerprint: Fingerprint of the model of the embeddings.
          dim: Number of dimensions of an embedding.

        Raises:
          ArtifactError: They are not.
        """
        if (fingerprint, dim) != (self.model, self.dim):
            raise ArtifactError(
                f"{name} was trained on {self.dim} numbers of the model {self.model}, "
                f"and these embeddings are {dim} numbers of {fingerprint}: use that "
                "model, or train a similarity on this one's embeddings."
            )


def save_similarity(path: str | os.PathLike[str], stored: StoredSimilarity) -> None:
    """Writes a file for `load_similarity`, whole or not at all.

    Args:
      path: Path of an .npz file.
      stored: Trained similarity.

    Raises:
      WriteError: The file cannot be written.
    """
    path, arrays = pathlib.Path(path), stored.similarity.arrays()
    defaults = SIMILARITIES.options(stored.kind)
    about = checksums.seal_json(
        {
            "format": _FORMAT,
            "kind": stored.kind,
            "options": {**defaults, **stored.options},
            "model": stored.model,
            "dim": stored.dim,
            "seed": stored.seed,
            "metrics": stored.metrics,
            "arrays": {name: _digest(array) for name, array in arrays.items()},
        }
    )
    text = np.frombuffer(json.dumps(about).encode(), np.uint8)
    files.create_folder(path.parent)
    with files.replacing(path) as file:
        np.savez(file, allow_pickle=False, **{**arrays, _ABOUT: text})


def load_similarity(path: str | os.PathLike[str]) -> StoredSimilarity:
    """Reads a file written by `save_similarity`.

    Args:
      path: Path of the file.

    Raises:
      ArtifactError: There is no such file, it is of another kind or damaged, or its
        kind of similarity is not known.
    """
    path = pathlib.Path(path)
    try:
        arrays = checksums.read_arrays(path)
        about = _read_about(arrays.pop(_ABOUT))
        _check_arrays(arrays, about["arrays"])
        similarity = create_learned(about["kind"], about["options"])
        similarity.restore(arrays, about["dim"])
    except ConfigError as error:
        raise ArtifactError(
            f"{path}: {error} It was written by another version, or its kind is a "
            f"plug-in that is not imported; {_REMEDY}."
        ) from error
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{path}: there is no such file; give a similarity written by "
            "`deeprank train-similarity`."
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ArtifactError(
            f"{path} is not a trained similarity, or damaged ({reason}); {_REMEDY}."
        ) from error
    fields = ("kind", "options", "model", "dim", "seed", "metrics")
    return StoredSimilarity(
        similarity=similarity, **{name: about[name] for name in fields}
    )


def _read_about(text: np.ndarray) -> dict[str, Any]:
    sealed = files.parse_json(text.astype(np.uint8).tobytes().decode())
    about = checksums.unseal_json(sealed)
    if len(about) == len(sealed):
        raise ValueError("its description has no checksum")
    if about["format"] != _FORMAT:
        raise ValueError(f"format {about['format']}, not {_FORMAT}")
    for name, kind in _TYPES.items():
        if type(about[name]) is not kind:
            raise ValueError(f"{name} is {about[name]!r:.50}, not a {kind.__name__}")
    return about


def _check_arrays(arrays: Mapping[str, np.ndarray], digests: Mapping[str, str]) -> None:
    """Checks arrays against their checksums.

    Raises:
      ValueError: An array is missing, was added or has changed.
    """
    if arrays.keys() != digests.keys():
        raise ValueError(f"it holds {sorted(arrays)}, not {sorted(digests)}")
    for name, array in arrays.items():
        if _digest(array) != digests[name]:
            raise ValueError(f"{name} has changed since it was written")


def _digest(array: np.ndarray) -> str:
    header = f"{array.dtype.str} {array.shape} ".encode()
    content = np.ascontiguousarray(array).tobytes()
    return hashlib.sha256(header + content).hexdigest()
