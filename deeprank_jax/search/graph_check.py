"""Check of a graph file before FAISS reads it.

FAISS believes the sizes and row numbers of a file: a stranger's could take all memory,
or let a search read outside of its tables. A file of a layout that is not known here is
refused, too, and the graph is built again.
"""

import os
import struct
from typing import IO

import numpy as np

_NAMES = b"IHNf", b"IxF2"
_HEADER = struct.Struct("<iqqq?i")
_NUMBERS = struct.Struct("<iiiii")
_SQUARED_EUCLIDEAN = 1
_MOST_NEIGHBORS = 2**16


def check_graph(file: IO[bytes], dim: int) -> None:
    """Checks the tables of an HNSW graph, and leaves the file where it was.

    Args:
      file: File, positioned at the graph.
      dim: Number of dimensions of its rows.

    Raises:
      ValueError: It is no such graph, or its tables do not fit each other.
    """
    start = file.tell()
    try:
        _check(file, dim)
    except struct.error as error:
        raise ValueError("it is cut off") from error
    finally:
        file.seek(start)


def _check(file: IO[bytes], dim: int) -> None:
    num_rows = _read_header(file, _NAMES[0], dim)
    _read_table(file, "<f8")
    counts, levels, offsets, neighbors = (
        _read_table(file, dtype) for dtype in ("<i4", "<i4", "<u8", "<i4")
    )
    entry, top, *_ = _NUMBERS.unpack(file.read(_NUMBERS.size))
    steps = np.diff(counts)
    is_whole = (
        len(levels) == num_rows
        and len(offsets) == num_rows + 1
        and len(counts) > 1
        and counts[0] == 0
        and bool(((steps >= 0) & (steps <= _MOST_NEIGHBORS)).all())
        and _is_within(levels, 1, len(counts) - 1)
        and offsets[0] == 0
        and np.array_equal(np.diff(offsets), counts[levels].astype(np.uint64))
        and offsets[-1] == len(neighbors)
        and _is_within(neighbors, -1, num_rows - 1)
        and -1 <= entry < num_rows
        and -1 <= top < (levels[entry] if num_rows and entry >= 0 else 0)
    )
    if not is_whole:
        raise ValueError("its tables do not fit each other")
    _check_levels(levels, offsets, neighbors, counts)
    if _read_header(file, _NAMES[1], dim) != num_rows:
        raise ValueError("it has other rows than links")
    if len(_read_table(file, "<f4")) != num_rows * dim or file.read(1):
        raise ValueError("its rows are not as many as it says")


def _check_levels(
    levels: np.ndarray, offsets: np.ndarray, neighbors: np.ndarray, counts: np.ndarray
) -> None:
    """Checks that rows are linked on levels that both of them have."""
    for level in range(1, int(levels.max(initial=0))):
        rows = np.flatnonzero(levels > level)
        for row in rows.tolist():
            first = int(offsets[row]) + int(counts[level])
            linked = neighbors[first : int(offsets[row]) + int(counts[level + 1])]
            if (levels[linked[linked >= 0]] <= level).any():
                raise ValueError("it links rows on levels that they do not have")


def _read_header(file: IO[bytes], name: bytes, dim: int) -> int:
    """Returns the number of rows."""
    if file.read(4) != name:
        raise ValueError("it is another kind of graph")
    header = _HEADER.unpack(file.read(_HEADER.size))
    graph_dim, num_rows, _, _, _, metric = header
    if graph_dim != dim or num_rows < 0 or metric != _SQUARED_EUCLIDEAN:
        raise ValueError("it is of other rows")
    return num_rows


def _read_table(file: IO[bytes], dtype: str) -> np.ndarray:
    (length,) = struct.unpack("<Q", file.read(8))
    position = file.tell()
    left = file.seek(0, os.SEEK_END) - position
    file.seek(position)
    size = length * np.dtype(dtype).itemsize
    if size > left:
        raise ValueError("it is cut off")
    return np.frombuffer(file.read(size), dtype)


def _is_within(values: np.ndarray, low: int, high: int) -> bool:
    return not len(values) or (values.min() >= low and values.max() <= high)
