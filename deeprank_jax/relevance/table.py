"""Relevance from a table of pairs: `id_a,id_b,relevance`, CSV or Parquet.

Convention: a pair counts in both directions, and a pair that is not in the table has
relevance 0. The relevance of a record to itself is the largest of the table, so that
it is never its own negative; nor is it ever its own positive.
"""

from collections.abc import Sequence
import pathlib

import numpy as np

from deeprank_jax import files
from deeprank_jax.errors import needs_extra

with needs_extra("train"):
    import pyarrow
    import pyarrow.compute
    import pyarrow.csv
    import pyarrow.parquet

from deeprank_jax.data.records import Records
from deeprank_jax.errors import DataError
from deeprank_jax.relevance.base import Array

_COLUMNS = ("id_a", "id_b", "relevance")


class Table:
    """The relevance of the listed pairs.

    Its attribute is the record's number in the table. All records that are not in the
    table share one more number, which is relevant to none.
    """

    def __init__(self, file: str):
        """Reads the table.

        Args:
          file: Table of pairs, .csv or .parquet, with the columns id_a, id_b and
            relevance; ids as `Records.describe` returns them.

        Raises:
          DataError: The file does not exist, lacks a column or has no row, or a row
            has no id, the same id twice or a negative relevance, or contradicts
            another row.
        """
        self.file = file
        table = _read(file)
        ids = [_ids(file, name, table[name]) for name in _COLUMNS[:2]]
        values = _relevances(file, table["relevance"])
        encoded = pyarrow.chunked_array(ids).combine_chunks().dictionary_encode()
        codes = encoded.indices.to_numpy().astype(np.int32).reshape(2, -1)
        self._ids: list[str] = encoded.dictionary.to_pylist()
        self._first_row = _first_rows(codes, len(self._ids))
        self_pairs = np.flatnonzero(codes[0] == codes[1])
        if len(self_pairs):
            row = int(self_pairs[0])
            raise DataError(
                f"{file}: row {row + 1:,} pairs {self._ids[codes[0, row]]!r} with "
                "itself; remove it, as a record is never its own positive."
            )
        pairs, values = self._unique(codes, values)
        self._to_itself = float(values.max())
        # The neighbours of record i lie from `start[i]` to `start[i + 1]`.
        heads, tails = np.concatenate([pairs, pairs[::-1]], axis=1)
        order = np.lexsort((tails, heads))
        self._tails = tails[order]
        self._values = np.tile(values, 2)[order]
        counts = np.bincount(heads, minlength=len(self._ids) + 1)
        self._start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        self._num_halvings = int(counts.max()).bit_length()

    def attributes(self, splits: Sequence[Records]) -> list[np.ndarray]:
        """Returns the records' numbers, `[N, 1]` int32 for each split.

        Raises:
          DataError: The table has ids that no split has.
        """
        number_of = {name: number for number, name in enumerate(self._ids)}
        num_ids = len(self._ids)
        numbers = [
            np.array(
                [number_of.get(split.describe(i), num_ids) for i in range(len(split))],
                np.int32,
            ).reshape(-1, 1)
            for split in splits
        ]
        has_record = np.zeros(num_ids + 1, bool)
        for of_split in numbers:
            has_record[of_split] = True
        unknown = np.flatnonzero(~has_record[:num_ids])
        if len(unknown):
            first = unknown[np.argmin(self._first_row[unknown])]
            name = splits[0].describe(0) if len(splits[0]) else ""
            raise DataError(
                f"{self.file}: no record has {len(unknown):,} of its {num_ids:,} ids, "
                f"the first {self._ids[first]!r} in row {self._first_row[first] + 1:,} "
                f"(an id of a record: {name!r}); correct them or remove their rows."
            )
        return numbers

    def pairwise(self, a: Array, b: Array) -> Array:
        """Returns the relevance of `[..., 1]` to `[..., 1]`, as `[...]`."""
        heads, tails = a[..., 0], b[..., 0]
        xp = a.__array_namespace__()
        if _is_block(heads, tails):
            relevance = self._block(heads[:, 0], tails[0])
        else:
            relevance = self._search(heads, tails)
        same = (heads == tails) & (heads < len(self._ids))
        return xp.where(same, self._to_itself, relevance)

    def total(self, attributes: np.ndarray) -> np.ndarray:
        """Returns `[N]` float64, in closed form from the pairs among the records.

        Args:
          attributes: `[N, 1]` int32, one row per record.
        """
        numbers, label, counts = np.unique(
            attributes[:, 0], return_inverse=True, return_counts=True
        )
        rows, entries = self._neighbours(numbers)
        columns, is_listed = _positions(numbers, self._tails[entries])
        shares = self._values[entries] * counts[columns] * is_listed
        totals = np.bincount(rows, weights=shares, minlength=len(numbers))
        twins = (counts - 1.0) * (numbers < len(self._ids))
        return (totals + self._to_itself * twins)[label]

    def _search(self, heads: Array, tails: Array) -> Array:
        """Looks up each pair by binary search in the neighbours of its first record."""
        xp = heads.__array_namespace__()
        start, sorted_tails, values = map(
            xp.asarray, (self._start, self._tails, self._values)
        )
        low, end = start[heads], start[heads + 1]
        high = end
        for _ in range(self._num_halvings):
            middle = (low + high) // 2
            tail = sorted_tails[xp.minimum(middle, len(self._tails) - 1)]
            is_smaller = (low < high) & (tail < tails)
            low, high = (
                xp.where(is_smaller, middle + 1, low),
                xp.where(is_smaller, high, xp.minimum(middle, high)),
            )
        entry = xp.minimum(low, len(self._tails) - 1)
        is_listed = (low < end) & (sorted_tails[entry] == tails)
        return xp.where(is_listed, values[entry], 0.0)

    def _block(self, heads: np.ndarray, tails: np.ndarray) -> np.ndarray:
        """Returns `[n, m]`, filled from the few neighbours of each record."""
        numbers, label = np.unique(tails, return_inverse=True)
        rows, entries = self._neighbours(heads)
        columns, is_listed = _positions(numbers, self._tails[entries])
        block = np.zeros((len(heads), len(numbers)))
        block[rows[is_listed], columns[is_listed]] = self._values[entries[is_listed]]
        return block[:, label]

    def _neighbours(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns `[K]` rows of `numbers` and `[K]` entries of their neighbours."""
        start = self._start[numbers].astype(np.int64)
        length = self._start[numbers + 1] - start
        rows = np.repeat(np.arange(len(numbers)), length)
        before = np.cumsum(length) - length
        return rows, np.arange(len(rows)) + np.repeat(start - before, length)

    def _unique(
        self, codes: np.ndarray, values: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns each pair once, `[2, P]`, with its relevance `[P]`."""
        low, high = np.sort(codes, axis=0).astype(np.int64)
        _, first, pair = np.unique(
            low * len(self._ids) + high, return_index=True, return_inverse=True
        )
        other = np.flatnonzero(values != values[first[pair]])
        if len(other):
            row = int(other[0])
            before = int(first[pair[row]])
            a, b = (self._ids[code] for code in codes[:, row])
            raise DataError(
                f"{self.file}: row {row + 1:,} gives {a!r} and {b!r} the relevance "
                f"{values[row]}, row {before + 1:,} {values[before]}; give a pair one "
                "relevance for both directions."
            )
        return codes[:, first], values[first]


def _read(file: str) -> pyarrow.Table:
    path = pathlib.Path(file).expanduser()
    readers = {".csv": _read_csv, ".parquet": pyarrow.parquet.read_table}
    if path.suffix.lower() not in readers:
        raise DataError(
            f"config.relevance.file={file!r} is neither .csv nor .parquet; save the "
            "pairs as one of them."
        )
    if not path.is_file():
        raise DataError(
            f"config.relevance.file={file!r} does not exist; give the path of a table "
            "of pairs."
        )
    try:
        files.check_file(path)
        table = readers[path.suffix.lower()](path)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(
            f"{file}: cannot be read ({error}); it needs the columns "
            f"{','.join(_COLUMNS)}."
        ) from error
    missing = [name for name in _COLUMNS if name not in table.column_names]
    if missing:
        raise DataError(
            f"{file}: has no column {missing[0]!r} (its columns are "
            f"{', '.join(table.column_names) or 'none'}); it needs the columns "
            f"{','.join(_COLUMNS)}."
        )
    twice = [name for name in _COLUMNS if table.column_names.count(name) > 1]
    if twice:
        raise DataError(f"{file}: has the column {twice[0]!r} twice; remove one.")
    if not table.num_rows:
        raise DataError(f"{file}: lists no pair; add a row for each.")
    return table


def _read_csv(path: pathlib.Path) -> pyarrow.Table:
    # As text, so that a message can quote a value that is not a number.
    types = dict.fromkeys(_COLUMNS, pyarrow.string())
    return pyarrow.csv.read_csv(
        path,
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(column_types=types),
    )


def _ids(file: str, name: str, column: pyarrow.ChunkedArray) -> pyarrow.Array:
    ids = column.cast(pyarrow.string()).combine_chunks().fill_null("")
    is_empty = pyarrow.compute.call_function("equal", [ids, pyarrow.scalar("")])
    empty = np.flatnonzero(is_empty.to_numpy(zero_copy_only=False))
    if len(empty):
        raise DataError(
            f"{file}: row {empty[0] + 1:,} has no {name}; fill it in or remove the row."
        )
    return ids


def _relevances(file: str, column: pyarrow.ChunkedArray) -> np.ndarray:
    """Returns `[R]` float64."""
    row = _first_unreadable(column)
    if row is None:
        values = _to_floats(column)
        invalid = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
        if not len(invalid):
            return values
        row = int(invalid[0])
    value = column[row].as_py()
    raise DataError(
        f"{file}: row {row + 1:,} has the relevance {value!r}; it must be a finite "
        "number of at least 0."
    )


def _to_floats(column: pyarrow.ChunkedArray) -> np.ndarray:
    if pyarrow.types.is_string(column.type):
        column = pyarrow.compute.call_function("utf8_trim_whitespace", [column])
    # A missing value becomes NaN, which is refused.
    return column.cast(pyarrow.float64()).to_numpy()


def _first_unreadable(column: pyarrow.ChunkedArray) -> int | None:
    """Returns the first row that is not a number, None if all are numbers."""

    def is_readable(num_rows: int) -> bool:
        try:
            _to_floats(column.slice(0, num_rows))
        except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError):
            return False
        return True

    low, high = 0, len(column)
    if is_readable(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if is_readable(middle) else (low, middle)
    return low


def _first_rows(codes: np.ndarray, size: int) -> np.ndarray:
    """Returns `[V]`, the first row of each id."""
    rows = np.full(size, codes.shape[1])
    for column in codes:
        np.minimum.at(rows, column, np.arange(codes.shape[1]))
    return rows


def _positions(
    ordered: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the position of each value in `ordered`, and a mask of those in it."""
    positions = np.minimum(np.searchsorted(ordered, values), max(len(ordered) - 1, 0))
    return positions, ordered[positions] == values


def _is_block(heads: Array, tails: Array) -> bool:
    """Returns whether these are NumPy's `[n, 1]` and `[1, m]`: all pairs."""
    return (
        isinstance(heads, np.ndarray)
        and heads.ndim == tails.ndim == 2
        and heads.shape[1] == tails.shape[0] == 1
        and tails.shape[1] > 0
    )
