"""Files of an unfinished table of embeddings, in the folder `NAME.parts` beside it."""

import pathlib

import numpy as np

from deeprank_jax import checksums, files

# File with the identity of the table, its model and images.
IDENTITY = "parts.json"
PATTERN = "*.npz"


def read_part(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns `embeddings [N, D]` and `indices [N]` of a part.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: It is damaged.
    """
    arrays = checksums.read_arrays(path)
    if arrays.keys() != {"embeddings", "indices"}:
        raise ValueError(f"it holds {', '.join(arrays)}")
    return arrays


def folder_of(table: pathlib.Path) -> pathlib.Path:
    """Returns the folder of the finished parts of a table, beside it.

    Args:
      table: Path of the table.
    """
    return table.with_name(f"{files.with_room(table.name)}.parts")
