"""Tables of images' names, CSV and Parquet, and the records that names stand for.

Convention: a table names an image as `Records.describe` does, or by its path.
"""

from collections.abc import Iterator, Sequence
import csv
import functools
import os
import pathlib

import numpy as np

from deeprank_jax import checksums
from deeprank_jax.data.records import Records
from deeprank_jax.errors import DataError, needs_extra

with needs_extra("train"):
    import pyarrow
    import pyarrow.compute
    import pyarrow.csv
    import pyarrow.parquet

# Rows that are read together from Parquet, and bytes from CSV.
_ROWS = 2**16
_BYTES = 2**24


class RecordNames:
    """Records by the names of their images."""

    def __init__(
        self, records: Records, others: Sequence[Records], bases: tuple[str, str]
    ):
        """Takes the names of all records.

        Args:
          records: Records of the split, which come first.
          others: Records of the other splits.
          bases: Folder that the records' paths start from, or a file in it, and the
            folder of the table.
        """
        splits = [records, *others]
        self.num_records = len(records)
        self._names = [name for split in splits for name in list_ids(split)]
        self._options = pyarrow.compute.SetLookupOptions(
            pyarrow.array(self._names, pyarrow.string())
        )
        root = os.path.expanduser(bases[0])
        root = os.path.dirname(root) if os.path.isfile(root) else root
        self._bases = (root, bases[1], "")

    def find(self, values: pyarrow.Array) -> np.ndarray:
        """Returns `[n]` indices of records, -1 for an unknown name."""
        matches = pyarrow.compute.call_function("index_in", [values], self._options)
        index = np.array(matches.fill_null(-1), np.int32)
        missing = np.flatnonzero(index < 0)
        if len(missing):
            encoded = values.take(pyarrow.array(missing)).dictionary_encode()
            paths = [self._find_path(name) for name in encoded.dictionary.to_pylist()]
            index[missing] = np.array(paths, np.int32)[np.asarray(encoded.indices)]
        return index

    def name(self, index: int) -> str:
        """Returns the name of a record."""
        return self._names[index]

    def _find_path(self, name: str) -> int:
        for base in self._bases:
            index = self._of_path.get(os.path.abspath(os.path.join(base, name)))
            if index is not None:
                return index
        return -1

    @functools.cached_property
    def _of_path(self) -> dict[str, int]:
        # Backwards, so that the first record of a name stays in the dict.
        root = self._bases[0]
        return {
            os.path.abspath(os.path.join(root, self._names[index])): index
            for index in reversed(range(len(self._names)))
        }


def list_ids(records: Records, num: int | None = None) -> list[str]:
    """Returns the names of the first records as text that every file can hold."""
    size = len(records) if num is None else num
    return [
        records.describe(index).encode("utf-8", "backslashreplace").decode()
        for index in range(size)
    ]


def read_header(file: pathlib.Path) -> list[str]:
    """Returns the values of the first line of a CSV file, none if it is empty."""
    with file.open(encoding="utf-8-sig", newline="") as text:
        return next(csv.reader(text), [])


def read_csv(
    file: pathlib.Path,
    header: Sequence[str],
    columns: Sequence[str],
    *,
    has_header: bool = True,
) -> Iterator[pyarrow.RecordBatch]:
    """Yields the rows of a CSV file, all values as text, none of them null.

    Args:
      file: Path of the file.
      header: Names of its columns.
      columns: Names of the columns to read; those that it lacks are left out.
      has_header: True if the first line is not a row.

    Raises:
      DataError: It has a column twice.
      OSError: It cannot be read.
      pyarrow.ArrowException: It is not a table.
    """
    _check_once(file, header, columns)
    # All columns are read as text, so that a bad number is reported with its row.
    yield from pyarrow.csv.open_csv(
        file,
        pyarrow.csv.ReadOptions(
            block_size=_BYTES, column_names=list(header), skip_rows=int(has_header)
        ),
        pyarrow.csv.ParseOptions(newlines_in_values=True),
        pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(columns, pyarrow.string()),
            include_columns=[name for name in header if name in columns],
            strings_can_be_null=False,
        ),
    )


def read_parquet(
    file: pathlib.Path, columns: Sequence[str]
) -> Iterator[pyarrow.RecordBatch]:
    """Yields the rows of a Parquet file, checked against its digest if it has one.

    Args:
      file: Path of the file.
      columns: Names of the columns to read; those that it lacks are left out.

    Raises:
      DataError: It has a column twice.
      OSError: It cannot be read, or has changed.
      pyarrow.ArrowException: It is not a table.
    """
    with pyarrow.parquet.ParquetFile(file, page_checksum_verification=True) as parquet:
        names = [name for name in parquet.schema_arrow.names if name in columns]
        _check_once(file, names, columns)
        digest = checksums.TableDigest()
        for batch in parquet.iter_batches(_ROWS, columns=names):
            digest.add_batch(batch)
            yield batch
        digest.check(parquet.metadata.metadata)


def to_names(column: pyarrow.Array) -> pyarrow.Array:
    """Returns strings, null as an empty one."""
    return column.cast(pyarrow.string()).fill_null("")


def need_quotes(names: Sequence[str]) -> bool:
    """Returns whether names can be read again from CSV only if all are quoted."""
    # The csv module leaves a lone carriage return bare, where readers end a line.
    return any("\r" in name for name in names)


def _check_once(
    file: pathlib.Path, names: Sequence[str], columns: Sequence[str]
) -> None:
    for name in columns:
        if names.count(name) > 1:
            raise DataError(f"{file}: has the column {name!r} twice; remove one.")
