"""Relevance from a table of pairs: `id_a,id_b,relevance`, CSV or Parquet.

Convention: a pair counts in both directions, and one that is not in the table is not
relevant. A record is as relevant to itself as the most relevant pair of the table, so
that it never passes for its own negative; nor is it ever its own positive.
"""

from collections.abc import Sequence
import pathlib
from typing import Any

import numpy as np

from deeprank_jax.errors import needs_extra

with needs_extra("train"):
    import pyarrow
    import pyarrow.compute
    import pyarrow.csv
    import pyarrow.parquet

_COLUMNS = ("id_a", "id_b", "relevance")


class Table:
    """The relevance of the listed pairs.

    Its attribute is the record's number in the table; all records that are not in it
    share one more number, which is relevant to none.
    """

    def __init__(self, file: str):
        """Reads the table.

        Args:
          file: `.csv` or `.parquet`; ids are those that `Records.describe` gives.

        Raises:
          ValueError: there is no such file, it lacks a column or a row, or a row has
            no id, the same id twice or a relevance that cannot be, or contradicts
            another row.
        """
        self.file = file
        table = _read(file)
        ids = [_ids(file, name, table[name]) for name in _COLUMNS[:2]]
        values = _relevances(file, table["relevance"])
        both = pyarrow.chunked_array(ids).combine_chunks().dictionary_encode()
        codes = both.indices.to_numpy().astype(np.int32).reshape(2, -1)
        self._ids: list[str] = both.dictionary.to_pylist()
        self._first_row = _first_rows(codes, len(self._ids))
        itself = np.flatnonzero(codes[0] == codes[1])
        if len(itself):
            row = int(itself[0])
            raise ValueError(
                f"{file}: row {row + 1:,} pairs {self._ids[codes[0, row]]!r} with "
                "itself; remove it, as a record is never its own positive."
            )
        pairs, values = self._unique(codes, values)
        self._itself = float(values.max())
        # The neighbours of record i are those from `start[i]` to `start[i + 1]`.
        heads, tails = np.concatenate([pairs, pairs[::-1]], axis=1)
        order = np.lexsort((tails, heads))
        self._tails = tails[order]
        self._values = np.tile(values, 2)[order]
        counts = np.bincount(heads, minlength=len(self._ids) + 1)
        self._start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
        self._num_halvings = int(counts.max()).bit_length()

    def attributes(self, splits: Sequence[Any]) -> list[np.ndarray]:
        """Returns the records' numbers, `[N, 1]` int32 for each split.

        Raises:
          ValueError: the table has ids that no split has.
        """
        number_of = {name: number for number, name in enumerate(self._ids)}
        none = len(self._ids)
        found = [
            np.array(
                [number_of.get(records.describe(i), none) for i in range(len(records))],
                np.int32,
            ).reshape(-1, 1)
            for records in splits
        ]
        seen = np.zeros(none + 1, bool)
        for numbers in found:
            seen[numbers] = True
        unknown = np.flatnonzero(~seen[:none])
        if len(unknown):
            first = unknown[np.argmin(self._first_row[unknown])]
            name = splits[0].describe(0) if len(splits[0]) else ""
            raise ValueError(
                f"{self.file}: {len(unknown):,} of its {none:,} ids are of no record, "
                f"the first {self._ids[first]!r} in row {self._first_row[first] + 1:,} "
                f"(records have ids as {name!r}); correct them or remove their rows."
            )
        return found

    def pairwise(self, a: Any, b: Any) -> Any:
        """Returns the relevance of `[..., 1]` to `[..., 1]`, as `[...]`."""
        heads, tails = a[..., 0], b[..., 0]
        xp = a.__array_namespace__()
        if _is_block(heads, tails):
            found = self._block(heads[:, 0], tails[0])
        else:
            found = self._search(heads, tails)
        same = (heads == tails) & (heads < len(self._ids))
        return xp.where(same, self._itself, found)

    def total(self, attributes: np.ndarray) -> np.ndarray:
        """Returns `[N]` float64, in closed form from the pairs among the records.

        Args:
          attributes: `[N, 1]` int32.
        """
        numbers, label, counts = np.unique(
            attributes[:, 0], return_inverse=True, return_counts=True
        )
        rows, places = self._neighbours(numbers)
        columns, known = _positions(numbers, self._tails[places])
        shares = self._values[places] * counts[columns] * known
        totals = np.bincount(rows, weights=shares, minlength=len(numbers))
        twins = (counts - 1.0) * (numbers < len(self._ids))
        return (totals + self._itself * twins)[label]

    def _search(self, heads: Any, tails: Any) -> Any:
        """Looks each pair up by halving the neighbours of its first record."""
        xp = heads.__array_namespace__()
        start, sorted_tails, values = map(
            xp.asarray, (self._start, self._tails, self._values)
        )
        low, end = start[heads], start[heads + 1]
        high = end
        for _ in range(self._num_halvings):
            middle = (low + high) // 2
            found = sorted_tails[xp.minimum(middle, len(self._tails) - 1)]
            left = (low < high) & (found < tails)
            low, high = (
                xp.where(left, middle + 1, low),
                xp.where(left, high, xp.minimum(middle, high)),
            )
        place = xp.minimum(low, len(self._tails) - 1)
        hit = (low < end) & (sorted_tails[place] == tails)
        return xp.where(hit, values[place], 0.0)

    def _block(self, heads: np.ndarray, tails: np.ndarray) -> np.ndarray:
        """Returns `[n, m]`: goes through the neighbours, which are few."""
        numbers, label = np.unique(tails, return_inverse=True)
        rows, places = self._neighbours(heads)
        columns, known = _positions(numbers, self._tails[places])
        found = np.zeros((len(heads), len(numbers)))
        found[rows[known], columns[known]] = self._values[places[known]]
        return found[:, label]

    def _neighbours(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns `[K]` rows of `numbers` and `[K]` places of their neighbours."""
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
            raise ValueError(
                f"{self.file}: row {row + 1:,} gives {a!r} and {b!r} the relevance "
                f"{values[row]}, row {before + 1:,} {values[before]}; a pair has one, "
                "the same in both directions."
            )
        return codes[:, first], values[first]


def _read(file: str) -> pyarrow.Table:
    path = pathlib.Path(file).expanduser()
    readers = {".csv": _read_csv, ".parquet": pyarrow.parquet.read_table}
    if path.suffix.lower() not in readers:
        raise ValueError(
            f"{file}: is neither .csv nor .parquet; save the pairs as one of them."
        )
    if not path.is_file():
        raise ValueError(
            f"{file}: there is no such table of pairs; set config.relevance.file to "
            "one that exists."
        )
    try:
        table = readers[path.suffix.lower()](path)
    except (OSError, pyarrow.ArrowException) as error:
        raise ValueError(
            f"{file}: cannot be read ({error}); it needs the columns "
            f"{','.join(_COLUMNS)}."
        ) from error
    missing = [name for name in _COLUMNS if name not in table.column_names]
    if missing:
        raise ValueError(
            f"{file}: has no column {missing[0]!r} (its columns are "
            f"{', '.join(table.column_names) or 'none'}); it needs the columns "
            f"{','.join(_COLUMNS)}."
        )
    twice = [name for name in _COLUMNS if table.column_names.count(name) > 1]
    if twice:
        raise ValueError(f"{file}: has the column {twice[0]!r} twice; remove one.")
    if not table.num_rows:
        raise ValueError(f"{file}: lists no pair; add a row for each.")
    return table


def _read_csv(path: pathlib.Path) -> pyarrow.Table:
    # As text, so that a value that is no number can be shown.
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
        raise ValueError(
            f"{file}: row {empty[0] + 1:,} has no {name}; fill it in or remove the row."
        )
    return ids


def _relevances(file: str, column: pyarrow.ChunkedArray) -> np.ndarray:
    """Returns `[R]` float64."""
    row = _first_unreadable(column)
    if row is None:
        values = _to_floats(column)
        wrong = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
        if not len(wrong):
            return values
        row = int(wrong[0])
    shown = column[row].as_py()
    raise ValueError(
        f"{file}: row {row + 1:,} has the relevance {shown!r}; it must be a finite "
        "number of at least 0."
    )


def _to_floats(column: pyarrow.ChunkedArray) -> np.ndarray:
    if pyarrow.types.is_string(column.type):
        column = pyarrow.compute.call_function("utf8_trim_whitespace", [column])
    # A value that is missing is not a number, and refused as such.
    return column.cast(pyarrow.float64()).to_numpy()


def _first_unreadable(column: pyarrow.ChunkedArray) -> int | None:
    """Returns the first row that is no number, None if all are."""

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
    ordered: np.ndarray, wanted: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns where each value stands in `ordered`, and whether it does."""
    places = np.minimum(np.searchsorted(ordered, wanted), max(len(ordered) - 1, 0))
    return places, ordered[places] == wanted


def _is_block(heads: Any, tails: Any) -> bool:
    """Returns whether NumPy is asked for all pairs of `[n, 1]` and `[1, m]`."""
    return (
        isinstance(heads, np.ndarray)
        and heads.ndim == tails.ndim == 2
        and heads.shape[1] == tails.shape[0] == 1
        and tails.shape[1] > 0
    )
