"""Bounded reading of NumPy's files, `.npy` and `.npz`.

The size that a header claims is compared with that of the file before any memory is
taken for it, and Python objects are refused.
"""

from collections.abc import Mapping
import math
import os
from typing import IO, Any, cast
import zipfile

import numpy as np

from deeprank_jax.files.reading import Path, open_file

# Largest factor by which an archive may grow; weights compress by a tenth.
_MAX_RATIO, _FREE_BYTES = 16, 2**24
_MAX_MEMBERS = 100_000


def read_npy(path: Path, limit: int | None = None) -> np.ndarray:
    """Returns the array of a `.npy` file; bytes after it are ignored.

    Args:
      path: Path of the file.
      limit: Largest size of the file in bytes; None for any.

    Raises:
      OSError: It cannot be read, or is no regular file.
      ValueError: It holds no array, or not all of it.
    """
    with open_file(path, limit) as file:
        check_npy(file)
        return np.load(file, allow_pickle=False)


def check_npy(file: IO[bytes], size: int | None = None) -> None:
    """Checks that a file holds the whole array that its header describes.

    Args:
      file: File, positioned at the array, where it is left.
      size: Number of bytes from there; None for the rest of the file.

    Raises:
      ValueError: It holds no array, Python objects, or not the whole array.
    """
    start = file.tell()
    if size is None:
        size = file.seek(0, os.SEEK_END) - start
        file.seek(start)
    try:
        version = np.lib.format.read_magic(file)
        read_header = _HEADERS.get(version)
        if read_header is None:
            raise ValueError(f"it has the version {version} of the format")
        shape, _, dtype = read_header(file)
    except ValueError:
        raise
    # A damaged header can make NumPy's reader raise anything.
    except Exception as error:
        raise ValueError(f"its header cannot be read ({error})") from error
    num_bytes = math.prod(shape) * dtype.itemsize
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are not read")
    if min(shape, default=0) < 0 or num_bytes > size - (file.tell() - start):
        raise ValueError(
            f"its header describes {num_bytes:,} bytes, more than it holds"
        )
    file.seek(start)


def read_npz(path: Path, limit: int | None = None) -> dict[str, np.ndarray]:
    """Returns the arrays of a `.npz` file by name.

    Args:
      path: Path of the file.
      limit: Largest size of the file in bytes; None for any.

    Raises:
      OSError: It cannot be read, or is no regular file.
      ValueError: It is damaged, holds something else than arrays, or unpacks to many
        times its size.
    """
    with open_file(path, limit) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                return _read_members(archive, os.fstat(file.fileno()).st_size)
        except ValueError:
            raise
        # A damaged archive raises anything, from BadZipFile to zlib's own error.
        except Exception as error:
            raise ValueError(f"it is damaged or no .npz ({error})") from error


def _read_members(archive: zipfile.ZipFile, size: int) -> dict[str, np.ndarray]:
    members = archive.infolist()
    total = sum(member.file_size for member in members)
    if len(members) > _MAX_MEMBERS or total > _MAX_RATIO * size + _FREE_BYTES:
        raise ValueError(
            f"its {len(members):,} parts unpack to {total:,} bytes, more than "
            f"{_MAX_RATIO} times its size"
        )
    arrays: dict[str, np.ndarray] = {}
    for member in members:
        with archive.open(member) as file:
            name = member.filename.removesuffix(".npy")
            try:
                check_npy(file, member.file_size)
                arrays[name] = np.load(cast("IO[bytes]", file), allow_pickle=False)
            except ValueError as error:
                raise ValueError(f"{name!r}: {error}") from error
    return arrays


_HEADERS: Mapping[tuple[int, int], Any] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
