"""Embeddings of the training images by a teacher, for the loss `distillation`."""

import dataclasses
import hashlib
import pathlib

from absl import logging
import ml_collections
import numpy as np

from deeprank_jax import losses
from deeprank_jax.data.real_paths import RealPaths
from deeprank_jax.data.records import Records
from deeprank_jax.distributed import processes
from deeprank_jax.errors import ConfigError, DataError, needs_extra
from deeprank_jax.inference import embedding_table
from deeprank_jax.relevance import vectors

with needs_extra("train"):
    import pyarrow
    import pyarrow.parquet

_KEY = "config.data.teacher"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Teacher:
    """Embeddings of a split by another model.

    Attributes:
      embeddings: `[N, T]` float32, unit vectors; NaN for a record without one.
      digest: SHA-256 of the records' vectors as the file has them.
      records: Records of the split.
    """

    embeddings: np.ndarray
    digest: str
    records: Records

    def of(self, indices: np.ndarray) -> np.ndarray:
        """Returns the embeddings of some records, `[..., T]`.

        Args:
          indices: `[...]` indices of records.

        Raises:
          DataError: A record has none.
        """
        embeddings = self.embeddings[indices]
        if np.isnan(embeddings[..., 0]).any():
            index = int(indices[np.isnan(embeddings[..., 0])][0])
            raise DataError(
                f"{_KEY} has no vector of {self.records.describe(index)!r}: embed the "
                "images again."
            )
        return embeddings


def check_teacher(config: ml_collections.ConfigDict) -> None:
    """Checks that there is a teacher if, and only if, the loss takes one.

    Args:
      config: Whole configuration.

    Raises:
      ConfigError: One is there without the other.
      DataError: The file does not exist.
    """
    file, takes_teacher = config.data.teacher, losses.takes_teacher(config.loss)
    if takes_teacher and not file:
        raise ConfigError(
            f"The loss distillation needs {_KEY}: the file of another model's "
            "embeddings of the training images, as `deeprank embed` writes it."
        )
    if file and not takes_teacher:
        raise ConfigError(
            f"{_KEY}={file!r} has no effect without the loss distillation: set it to "
            "'', or add that loss to config.loss."
        )
    if file and not pathlib.Path(file).expanduser().is_file():
        raise DataError(
            f"{file}: there is no such file of embeddings; correct the path ({_KEY}), "
            "or write it with `deeprank embed`."
        )


def read_teacher(config: ml_collections.ConfigDict, records: Records) -> Teacher | None:
    """Returns the teacher of a run; None if it has none.

    Args:
      config: Whole configuration.
      records: Records of the training split.

    Raises:
      ConfigError: The processes of a job read different files.
      DataError: The file cannot be read, lacks more records than may be unreadable, or
        holds a vector without a direction.
    """
    if not config.data.teacher:
        return None
    file = pathlib.Path(config.data.teacher).expanduser()
    if _is_table(file):
        values, rows = _match_table(file, records)
    else:
        content = vectors.read_vectors(file)
        values, rows = vectors.match(content, records), np.arange(len(records))
    _check_share(file, records, rows, config.data.max_bad_share)
    embeddings = np.full((len(records), values.shape[1]), np.nan, np.float32)
    embeddings[rows >= 0] = values[rows[rows >= 0]]
    digest = np.frombuffer(hashlib.sha256(embeddings.data).digest(), np.uint8)
    if not np.array_equal(processes.of_first(digest), digest):
        raise ConfigError(
            f"{file} has other vectors here than for process 0: give all processes the "
            "same file."
        )
    norms = np.sqrt(np.vecdot(embeddings, embeddings, dtype=np.float64))
    bad = np.flatnonzero((rows >= 0) & ~((norms > 0) & np.isfinite(norms)))
    if len(bad):
        raise DataError(
            f"{file}: the vector of {records.describe(int(bad[0]))!r} has no direction "
            "(zeros, or not finite); embed the images again."
        )
    embeddings /= norms[:, None].astype(np.float32)
    return Teacher(
        embeddings=embeddings, digest=digest.tobytes().hex(), records=records
    )


def _check_share(
    file: pathlib.Path, records: Records, rows: np.ndarray, max_bad_share: float
) -> None:
    """Checks that no more records lack a vector than may be unreadable.

    `deeprank embed` leaves out images that cannot be read, which no batch holds.
    """
    missing = np.flatnonzero(rows < 0)
    if not len(missing):
        return
    text = (
        f"{file}: has no vector for {len(missing):,} of the {len(records):,} records "
        f"of {records.name}, e.g. {records.describe(int(missing[0]))!r}"
    )
    if len(missing) > max_bad_share * len(records):
        raise DataError(f"{text}; embed the images of {records.name}.")
    logging.warning("%s.", text)


def _is_table(file: pathlib.Path) -> bool:
    """Returns whether a file is a table of `deeprank embed`, by its columns."""
    try:
        return "embedding" in pyarrow.parquet.read_schema(file).names
    except (OSError, pyarrow.ArrowException):
        return False


def _match_table(file: pathlib.Path, records: Records) -> tuple[np.ndarray, np.ndarray]:
    """Returns the vectors of a table, and the row of each record; -1 without one.

    Records that are files are matched by their real paths, others by their names.
    """
    paths, _, values, _ = embedding_table.read_table(file)
    name, find = str, records.describe
    if records.path is not None:
        name, find = RealPaths().of, records.path
    row_of = {name(path): row for row, path in enumerate(paths)}
    indices = range(len(records))
    return values, np.array([row_of.get(name(find(i)), -1) for i in indices], int)
