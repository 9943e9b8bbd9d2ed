"""Embeddings of the training images by a teacher, for the loss `distillation`."""

import hashlib
import os
import pathlib

import ml_collections
import numpy as np

from deeprank_jax import losses
from deeprank_jax.data.records import Records
from deeprank_jax.errors import ConfigError, DataError, needs_extra
from deeprank_jax.inference import embedding_table
from deeprank_jax.relevance import vectors

with needs_extra("train"):
    import pyarrow
    import pyarrow.parquet

_KEY = "config.data.teacher"


def check_teacher(config: ml_collections.ConfigDict) -> None:
    """Checks that there is a teacher if, and only if, the loss takes one.

    Args:
      config: Whole configuration.

    Raises:
      ConfigError: One is there without the other.
    """
    takes_teacher = losses.takes_teacher(config.loss)
    if takes_teacher and not config.data.teacher:
        raise ConfigError(
            f"The loss distillation needs {_KEY}: the file of another model's "
            "embeddings of the training images, as `deeprank embed` writes it."
        )
    if config.data.teacher and not takes_teacher:
        raise ConfigError(
            f"{_KEY}={config.data.teacher!r} has no effect without the loss "
            "distillation: set it to '', or add that loss to config.loss."
        )


def read_teacher(
    config: ml_collections.ConfigDict, records: Records
) -> np.ndarray | None:
    """Returns the teacher's embeddings of records, `[N, T]`; None without a teacher.

    Args:
      config: Whole configuration.
      records: Records of the training split.

    Returns:
      Unit vectors, float32.

    Raises:
      DataError: The file cannot be read, lacks a record or holds a vector of zeros.
    """
    if not config.data.teacher:
        return None
    file = pathlib.Path(config.data.teacher).expanduser()
    if _is_table(file):
        content = _read_table(file, config.data.dir)
    else:
        content = vectors.read_vectors(file, key=_KEY)
    embeddings = vectors.match(content, records)
    norms = np.linalg.norm(embeddings.astype(np.float64), axis=1, keepdims=True)
    zero = np.flatnonzero(norms == 0)
    if len(zero):
        raise DataError(
            f"{file}: the vector of {records.describe(int(zero[0]))!r} is 0 and has no "
            "direction; embed the images again."
        )
    return (embeddings / norms).astype(np.float32)


def digest(embeddings: np.ndarray) -> str:
    """Returns the SHA-256 of a teacher's embeddings, `[N, T]`."""
    return hashlib.sha256(np.ascontiguousarray(embeddings).data).hexdigest()


def _is_table(file: pathlib.Path) -> bool:
    """Returns whether a file is a table of `deeprank embed`, by its columns."""
    try:
        return "embedding" in pyarrow.parquet.read_schema(file).names
    except (OSError, pyarrow.ArrowException):
        return False


def _read_table(file: pathlib.Path, data_dir: str) -> vectors.Vectors:
    """Reads a table of `deeprank embed`.

    Args:
      file: Path of the table.
      data_dir: `config.data.dir`; images below it are named relative to it there, but
        not in the table.
    """
    paths, _, values, _ = embedding_table.read_table(file)
    root = pathlib.Path(os.path.abspath(pathlib.Path(data_dir).expanduser()))
    names = []
    for path in paths:
        whole = pathlib.Path(os.path.abspath(path))
        is_below = data_dir and whole.is_relative_to(root)
        names.append(whole.relative_to(root).as_posix() if is_below else path)
    return vectors.Vectors(ids=tuple(names), values=values, path=str(file))
