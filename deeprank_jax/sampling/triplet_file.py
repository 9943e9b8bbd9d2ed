"""Files of triplets: CSV, Parquet or plain lines.

Convention: a file names an image as `Records.describe` does, and its rows count from
1 without the header. `.csv` and `.parquet` have the columns
`anchor,positive,negative` and optionally `relevance_positive,relevance_negative`, as
well as `in_class,step`, which tell the origin of a row and are not read. `.txt`, the
format of the well-known Keras sampler, has three names a line; its header is optional.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
import contextlib
import csv
import functools
import io
import os
import pathlib
from typing import IO

import numpy as np

from deeprank_jax import checksums, files
from deeprank_jax.data.records import Records
from deeprank_jax.errors import DataError, needs_extra
from deeprank_jax.sampling import image_tables
from deeprank_jax.sampling.file_sampler import FileTripletData
from deeprank_jax.sampling.groups import Groups

with needs_extra("train"):
    import pyarrow
    import pyarrow.parquet

_SIDES = ("anchor", "positive", "negative")
_RELEVANCE = ("relevance_positive", "relevance_negative")
_ALL = (*_SIDES, *_RELEVANCE, "in_class", "step")
_NEEDED = "it needs the columns anchor,positive,negative"
Columns = dict[str, np.ndarray]
Writer = contextlib.AbstractContextManager[Callable[[Columns], None]]

# Rows that are written together.
_ROWS = 2**16


def write_triplets(
    path: str | os.PathLike[str],
    records: Records,
    batches: Iterable[Groups],
    limit: int | None = None,
) -> int:
    """Writes triplets, batch by batch, as a whole file or, after an error, not at all.

    Args:
      path: Path ending in `.csv` or `.parquet`, for all columns, or in `.txt`, for
        three names a line without a header.
      records: Records of the triplets.
      batches: Triplets in the order of the file.
      limit: Greatest number of triplets to write; None for all.

    Returns:
      The number of triplets in the file.

    Raises:
      DataError: The path ends otherwise, or there is no triplet.
      WriteError: The file cannot be written.
    """
    file = pathlib.Path(path).expanduser()
    if file.suffix.lower() not in _WRITERS:
        raise DataError(f"{path}: {_OTHER_SUFFIX}")
    files.create_folder(file.parent)
    num_written = 0
    with files.replacing(file) as output:
        with _WRITERS[file.suffix.lower()](
            output, image_tables.list_ids(records)
        ) as write:
            for columns in _join_batches(batches, limit):
                write(columns)
                num_written += len(columns["step"])
        if not num_written:
            raise DataError(f"{path}: there is no triplet to write.")
    return num_written


def read_triplets(
    path: str | os.PathLike[str],
    records: Records,
    *,
    others: Sequence[Records] = (),
    root: str | os.PathLike[str] = "",
) -> FileTripletData:
    """Reads the triplets of a split.

    A name that is not exactly that of a record is a path: from `root`, from the file's
    folder, or from the working directory. If several records have the same name, it
    stands for the first.

    Args:
      path: Path ending in `.csv`, `.parquet` or `.txt`.
      records: Records of the split.
      others: Records of the other splits; rows with an image of theirs are left out.
      root: Folder that the records' paths start from, or a file in it.

    Returns:
      At least one triplet.

    Raises:
      DataError: The file is missing, empty or in another format, an image is not a
        record or is twice in a triplet, or a positive is not more relevant than its
        negative.
    """
    file = pathlib.Path(path).expanduser()
    if file.suffix.lower() not in _READERS:
        raise DataError(f"{path}: {_OTHER_SUFFIX}")
    if not file.is_file():
        raise DataError(
            f"{path}: there is no such file of triplets; set config.sampler.file to "
            "one that exists, e.g. written by `deeprank triplets`."
        )
    names = image_tables.RecordNames(
        records, others, (os.fspath(root), os.fspath(file.parent))
    )
    rows = _Rows(os.fspath(path), names)
    try:
        files.check_file(file)
        for table in _READERS[file.suffix.lower()](file):
            rows.add(table)
    except (OSError, UnicodeDecodeError, csv.Error, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: cannot be read ({error}); {_NEEDED}.") from error
    return rows.finish(records)


class _Rows:
    """Rows of a file, checked as they are read."""

    def __init__(self, path: str, names: image_tables.RecordNames):
        self._path = path
        self._names = names
        self._indices: list[np.ndarray] = []
        self._relevance: list[np.ndarray] = []
        self._num_rows = 0
        self._num_unknown = 0
        self._first_unknown = ""

    def add(self, table: pyarrow.RecordBatch) -> None:
        """Adds the next rows.

        Raises:
          DataError: A column is missing, or a value is impossible.
        """
        self._check_columns(table.schema.names)
        sides = [image_tables.to_names(table.column(side)) for side in _SIDES]
        indices = self._names.find(pyarrow.concat_arrays(sides)).reshape(3, -1).T
        for row, side in np.argwhere(indices < 0)[:1]:
            if not self._num_unknown:
                self._first_unknown = (
                    f"row {self._number(row)} names {sides[side][row].as_py()!r}"
                )
        unknown = (indices < 0).any(axis=1)
        self._num_unknown += int(unknown.sum())
        twice = (indices == np.roll(indices, 1, axis=1)).any(axis=1) & ~unknown
        for row in np.flatnonzero(twice)[:1]:
            raise DataError(
                f"{self._path}: row {self._number(row)} has an image twice "
                f"({', '.join(repr(side[row].as_py()) for side in sides)}); anchor, "
                "positive and negative must be three images."
            )
        is_in_split = (indices < self._names.num_records).all(axis=1)
        self._indices.append(indices[is_in_split])
        if _RELEVANCE[0] in table.schema.names:
            self._relevance.append(self._read_relevance(table)[is_in_split])
        self._num_rows += len(indices)

    def finish(self, records: Records) -> FileTripletData:
        """Returns all rows.

        Raises:
          DataError: An image is not a record, or there is no row.
        """
        example = (
            f"{image_tables.list_ids(records, 1)[0]!r}" if len(records) else "nothing"
        )
        if self._num_unknown:
            raise DataError(
                f"{self._path}: {self._first_unknown}, which is not an image of the "
                f"dataset ({self._num_unknown:,} of {self._num_rows:,} rows have "
                f"such names); an image is named like {example}, or by its path from "
                "config.data.dir or from the folder of this file."
            )
        if not self._num_rows:
            raise DataError(f"{self._path}: holds no triplet; {_NEEDED} and rows.")
        indices = np.concatenate(self._indices)
        if not len(indices):
            raise DataError(
                f"{self._path}: none of its {self._num_rows:,} triplets has all three "
                f"images in {records.name}, e.g. {example}; draw triplets of that "
                "split."
            )
        relevance = np.concatenate(self._relevance) if self._relevance else None
        return FileTripletData(
            path=self._path,
            indices=indices,
            relevance=relevance,
            num_left_out=self._num_rows - len(indices),
        )

    def _number(self, row: int) -> str:
        return f"{self._num_rows + int(row) + 1:,}"

    def _check_columns(self, names: Sequence[str]) -> None:
        missing = [side for side in _SIDES if side not in names]
        relevance = [name for name in _RELEVANCE if name in names]
        if missing or len(relevance) == 1:
            missing += [x for x in _RELEVANCE if relevance and x not in relevance]
            raise DataError(
                f"{self._path}: has no column {missing[0]!r} (it has "
                f"{', '.join(map(repr, names))}); {_NEEDED}, and may have both of "
                f"{','.join(_RELEVANCE)}."
            )

    def _read_relevance(self, table: pyarrow.RecordBatch) -> np.ndarray:
        """Returns `[n, 2]` float64, finite, the positive's above the negative's."""
        columns = [table.column(name) for name in _RELEVANCE]
        relevance = np.stack([_to_floats(column) for column in columns], axis=1)
        wrong = ~(np.isfinite(relevance) & (relevance >= 0))
        for row, side in np.argwhere(wrong)[:1]:
            raise DataError(
                f"{self._path}: row {self._number(row)} has the {_RELEVANCE[side]} "
                f"{columns[side][row].as_py()!r}; it must be a finite number, at "
                "least 0."
            )
        for row in np.flatnonzero(relevance[:, 0] <= relevance[:, 1])[:1]:
            raise DataError(
                f"{self._path}: in row {self._number(row)} the positive "
                f"({relevance[row, 0]:g}) is not more relevant to the anchor than the "
                f"negative ({relevance[row, 1]:g}); exchange them or remove the row."
            )
        return relevance


def _to_floats(column: pyarrow.Array) -> np.ndarray:
    """Returns `[n]` float64, NaN for text that is not a number."""
    try:
        return np.array(column.cast(pyarrow.float64()).fill_null(np.nan))
    except pyarrow.ArrowInvalid:
        return np.array([_to_float(value) for value in column.to_pylist()])


def _to_float(value: str | None) -> float:
    try:
        return float(value or "")
    except (TypeError, ValueError):
        return np.nan


def _read_parquet(file: pathlib.Path) -> Iterator[pyarrow.RecordBatch]:
    return image_tables.read_parquet(file, _ALL)


def _read_csv(file: pathlib.Path) -> Iterator[pyarrow.RecordBatch]:
    first = image_tables.read_header(file)
    if not first:
        return
    header = [_SIDES[0] if name == "query" else name for name in first]
    has_header = set(_SIDES[1:]) <= set(first)
    if not has_header:
        if len(first) != 3:
            raise OSError(f"its first line is {','.join(first)[:80]!r}")
        header = list(_SIDES)
    yield from image_tables.read_csv(file, header, _ALL, has_header=has_header)


@contextlib.contextmanager
def _write_csv(
    file: IO[bytes], names: Sequence[str], *, header: bool = True
) -> Iterator[Callable[[Columns], None]]:
    quoting = image_tables.need_quotes(names)
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.writer(
        text,
        lineterminator="\n",
        quoting=csv.QUOTE_NONNUMERIC if quoting else csv.QUOTE_MINIMAL,
    )
    if header:
        writer.writerow(_ALL)

    def write(columns: Columns) -> None:
        sides = [[names[i] for i in columns[side].tolist()] for side in _SIDES]
        rest = [columns[name].tolist() for name in _ALL[3:]] if header else []
        writer.writerows(zip(*sides, *rest, strict=True))

    yield write
    text.detach()  # Flushes, and leaves the file open.


@contextlib.contextmanager
def _write_parquet(
    file: IO[bytes], names: Sequence[str]
) -> Iterator[Callable[[Columns], None]]:
    ids = pyarrow.array(names, pyarrow.string())
    types = dict(
        zip(
            _ALL,
            [pyarrow.string()] * 3
            + [pyarrow.float64()] * 2
            + [pyarrow.bool_(), pyarrow.int64()],
            strict=True,
        )
    )
    digest = checksums.TableDigest()
    with pyarrow.parquet.ParquetWriter(
        file, pyarrow.schema(types), write_page_checksum=True
    ) as writer:

        def write(columns: Columns) -> None:
            sides = {side: ids.take(pyarrow.array(columns[side])) for side in _SIDES}
            table = pyarrow.table({**columns, **sides}, writer.schema)
            writer.write_table(table)
            for batch in table.to_batches():
                digest.add_batch(batch)

        yield write
        writer.add_key_value_metadata({digest.KEY: digest.hexdigest()})


def _join_batches(batches: Iterable[Groups], limit: int | None) -> Iterator[Columns]:
    """Yields the columns of many triplets at a time, `limit` in all."""
    parts, num_rows, remaining = [], 0, np.inf if limit is None else limit
    for batch in batches:
        # Not before the next: a progress bar round the batches ends with the last.
        if remaining <= 0:
            break
        columns = _to_columns(batch, remaining)
        parts.append(columns)
        num_rows += len(columns["step"])
        remaining -= len(columns["step"])
        if num_rows >= _ROWS:
            yield _concatenate(parts)
            parts, num_rows = [], 0
    if num_rows:
        yield _concatenate(parts)


def _concatenate(parts: Sequence[Columns]) -> Columns:
    return {name: np.concatenate([part[name] for part in parts]) for name in _ALL}


def _to_columns(batch: Groups, limit: float) -> Columns:
    values = [
        *batch.indices.T,
        *batch.relevance.T,
        batch.in_class,
        np.full(len(batch.indices), batch.step),
    ]
    size = int(min(limit, len(batch.indices)))
    return {name: value[:size] for name, value in zip(_ALL, values, strict=True)}


_OTHER_SUFFIX = (
    "is neither .csv, .parquet nor .txt; give the file one of these endings."
)
_READERS: dict[str, Callable[[pathlib.Path], Iterator[pyarrow.RecordBatch]]] = {
    ".csv": _read_csv,
    ".txt": _read_csv,
    ".parquet": _read_parquet,
}
_WRITERS: dict[str, Callable[[IO[bytes], Sequence[str]], Writer]] = {
    ".csv": _write_csv,
    ".txt": functools.partial(_write_csv, header=False),
    ".parquet": _write_parquet,
}
