"""Files of pairs of images that are similar or not: CSV or Parquet.

Convention: the columns are `a,b,similar`; a file names an image as a file of triplets
does, and its rows count from 1 without the header. A pair that is not listed is neither
similar nor different.
"""

from collections.abc import Callable, Iterator, Sequence
import csv
import io
import os
import pathlib

import numpy as np

from deeprank_jax import files
from deeprank_jax.data.records import Records
from deeprank_jax.errors import DataError, needs_extra
from deeprank_jax.sampling import image_tables
from deeprank_jax.sampling.pair_sampler import ListedPairs

with needs_extra("train"):
    import pyarrow

_COLUMNS = ("a", "b", "similar")
_NEEDED = f"it needs the columns {','.join(_COLUMNS)}"
# Values of the column `similar`, in lower case; numbers of Parquet files may be floats.
_VALUES = {"0": 0, "0.0": 0, "false": 0, "1": 1, "1.0": 1, "true": 1}
_WORDS = ("different", "similar")


def read_pairs(
    path: str | os.PathLike[str],
    records: Records,
    *,
    others: Sequence[Records] | None = None,
    root: str | os.PathLike[str] = "",
) -> ListedPairs:
    """Reads the pairs of a split: those whose images are both in it.

    An image is found as by `triplet_file.read_triplets`. A pair that is listed twice,
    in either order, counts once.

    Args:
      path: Path ending in `.csv` or `.parquet`.
      records: Records of the split.
      others: Records of the other splits; pairs with an image of theirs are left out.
        None if they are not known: pairs with any other image are left out.
      root: Folder that the records' paths start from, or a file in it.

    Returns:
      The pairs; none if the split has none.

    Raises:
      DataError: The file is missing, empty or in another format, a value is neither 0
        nor 1, an image is no record or is paired with itself, or two rows contradict
        each other.
    """
    file = pathlib.Path(path).expanduser()
    if file.suffix.lower() not in _READERS:
        raise DataError(
            f"{path}: is neither .csv nor .parquet; save the pairs as one of them."
        )
    if not file.is_file():
        raise DataError(
            f"{path}: there is no such file of pairs; give one with the columns "
            f"{','.join(_COLUMNS)}, e.g. written by `deeprank pairs`."
        )
    names = image_tables.RecordNames(
        records, others or (), (os.fspath(root), os.fspath(file.parent))
    )
    rows = _Rows(os.fspath(path), names, may_be_unknown=others is None)
    try:
        files.check_file(file)
        for table in _READERS[file.suffix.lower()](file):
            rows.add(table)
    except (OSError, UnicodeDecodeError, csv.Error, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: cannot be read ({error}); {_NEEDED}.") from error
    return rows.finish(records)


def write_pairs(
    path: str | os.PathLike[str],
    records: Sequence[Records],
    indices: Sequence[np.ndarray],
    is_similar: Sequence[np.ndarray],
) -> None:
    """Writes pairs as CSV.

    Args:
      path: Path of the file, written whole or not at all.
      records: Records of each split.
      indices: `[P, 2]` ints for each split, indices of its records.
      is_similar: `[P]` bool for each split, True for a similar pair.

    Raises:
      WriteError: The file cannot be written.
    """
    text = io.StringIO()
    ids = [image_tables.list_ids(split) for split in records]
    quoting = any(image_tables.need_quotes(names) for names in ids)
    writer = csv.writer(
        text,
        lineterminator="\n",
        quoting=csv.QUOTE_NONNUMERIC if quoting else csv.QUOTE_MINIMAL,
    )
    writer.writerow(_COLUMNS)
    for names, rows, similar in zip(ids, indices, is_similar, strict=True):
        for (a, b), value in zip(rows.tolist(), similar.tolist(), strict=True):
            writer.writerow((names[a], names[b], int(value)))
    files.create_folder(pathlib.Path(path).expanduser().parent)
    files.write_text(pathlib.Path(path).expanduser(), text.getvalue())


class _Rows:
    """Rows of a file, checked as they are read."""

    def __init__(
        self, path: str, names: image_tables.RecordNames, *, may_be_unknown: bool
    ):
        self._path = path
        self._names = names
        self._may_be_unknown = may_be_unknown
        self._indices: list[np.ndarray] = []
        self._is_similar: list[np.ndarray] = []
        self._num_rows = 0
        self._num_unknown = 0
        self._first_unknown = ""

    def add(self, table: pyarrow.RecordBatch) -> None:
        """Adds the next rows.

        Raises:
          DataError: A column is missing, or a value is impossible.
        """
        columns = table.schema.names
        missing = [name for name in _COLUMNS if name not in columns]
        if missing:
            raise DataError(
                f"{self._path}: has no column {missing[0]!r} (it has "
                f"{', '.join(map(repr, columns)) or 'none of those needed'}); "
                f"{_NEEDED}."
            )
        sides = [image_tables.to_names(table.column(side)) for side in _COLUMNS[:2]]
        is_similar = self._read_similar(image_tables.to_names(table.column("similar")))
        indices = self._names.find(pyarrow.concat_arrays(sides)).reshape(2, -1).T
        for row, side in np.argwhere(indices < 0)[:1]:
            if not self._num_unknown:
                self._first_unknown = (
                    f"row {self._number(row)} names {sides[side][row].as_py()!r}"
                )
        is_unknown = (indices < 0).any(axis=1)
        self._num_unknown += int(is_unknown.sum())
        is_twice = (indices[:, 0] == indices[:, 1]) & ~is_unknown
        for row in np.flatnonzero(is_twice)[:1]:
            raise DataError(
                f"{self._path}: row {self._number(row)} pairs "
                f"{sides[0][row].as_py()!r} with itself; remove it, or name another "
                "image."
            )
        self._indices.append(indices)
        self._is_similar.append(is_similar)
        self._num_rows += len(indices)

    def finish(self, records: Records) -> ListedPairs:
        """Returns the pairs of the split, each once.

        Raises:
          DataError: An image is not a record, two rows contradict each other, or there
            is no row.
        """
        if self._num_unknown and not self._may_be_unknown:
            example = image_tables.list_ids(records, 1) if len(records) else ["nothing"]
            raise DataError(
                f"{self._path}: {self._first_unknown}, which is not an image of the "
                f"dataset ({self._num_unknown:,} of {self._num_rows:,} rows have "
                f"such names); an image is named like {example[0]!r}, or by its path "
                "from config.data.dir or from the folder of this file."
            )
        if not self._num_rows:
            raise DataError(f"{self._path}: holds no pair; {_NEEDED} and rows.")
        indices = np.concatenate(self._indices)
        is_similar = np.concatenate(self._is_similar)
        first = self._first_rows(indices, is_similar)
        indices, is_similar = indices[first], is_similar[first]
        is_in_split = (indices >= 0) & (indices < self._names.num_records)
        is_in_split = is_in_split.all(axis=1)
        return ListedPairs(
            path=self._path,
            indices=indices[is_in_split],
            is_similar=is_similar[is_in_split],
            num_left_out=int(np.sum(~is_in_split)),
            num_unknown=int(np.sum((indices < 0).any(axis=1))),
        )

    def _first_rows(self, indices: np.ndarray, is_similar: np.ndarray) -> np.ndarray:
        """Returns the first row of each pair, in ascending order.

        Raises:
          DataError: Two rows of a pair contradict each other.
        """
        is_known = (indices >= 0).all(axis=1)
        rows = np.flatnonzero(is_known)
        low, high = np.sort(indices[rows], axis=1).astype(np.int64).T
        _, first, pair = np.unique(
            low << 32 | high, return_index=True, return_inverse=True
        )
        first = rows[first]
        for place in np.flatnonzero(is_similar[rows] != is_similar[first[pair]])[:1]:
            row, before = rows[place], first[pair[place]]
            a, b = (self._names.name(index) for index in indices[before])
            raise DataError(
                f"{self._path}: row {before + 1:,} says that {a!r} and {b!r} are "
                f"{_WORDS[int(is_similar[before])]}, and row {row + 1:,} that they are "
                f"{_WORDS[int(is_similar[row])]}; remove one of the two."
            )
        return np.sort(np.concatenate([first, np.flatnonzero(~is_known)]))

    def _read_similar(self, column: pyarrow.Array) -> np.ndarray:
        """Returns `[n]` bool."""
        texts = column.to_pylist()
        values = np.array([_VALUES.get(text.strip().lower(), -1) for text in texts])
        for row in np.flatnonzero(values < 0)[:1]:
            raise DataError(
                f"{self._path}: row {self._number(row)} has the value {texts[row]!r} "
                "of similar; write 1 for a similar pair and 0 for a different one."
            )
        return values == 1

    def _number(self, row: int) -> str:
        return f"{self._num_rows + int(row) + 1:,}"


def _read_csv(file: pathlib.Path) -> Iterator[pyarrow.RecordBatch]:
    header = image_tables.read_header(file)
    if header:
        if missing := [name for name in _COLUMNS if name not in header]:
            raise DataError(
                f"{file}: has no column {missing[0]!r} (its first line is "
                f"{','.join(header)[:80]!r}); {_NEEDED}."
            )
        yield from image_tables.read_csv(file, header, _COLUMNS)


def _read_parquet(file: pathlib.Path) -> Iterator[pyarrow.RecordBatch]:
    return image_tables.read_parquet(file, _COLUMNS)


_READERS: dict[str, Callable[[pathlib.Path], Iterator[pyarrow.RecordBatch]]] = {
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
