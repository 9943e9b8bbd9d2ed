"""Source "manifest": a CSV or Parquet file with columns `path,level_1,...,level_n`.

Convention: paths are relative to the folder of the manifest; level 1 is the coarsest.
Any other column is a further label that a relevance may compare.
"""

from collections.abc import Sequence
import csv
import io
import os
import pathlib

import numpy as np

from deeprank_jax import errors, files
from deeprank_jax.data.records import Records
from deeprank_jax.data.sources import folder, labelled_files, texts
from deeprank_jax.data.splits import DEFAULT_SHARES, Shares
from deeprank_jax.errors import needs_extra

_NUM_CHECKED = 100
# Columns that name images and classes.
_KEYS = ("path", "label")
# Separators of columns that spreadsheets write instead of a comma.
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def create_records(
    directory: str,
    *,
    split_by: str = "class",
    test_share: float = DEFAULT_SHARES.test_share,
    validation_share: float = DEFAULT_SHARES.validation_share,
) -> dict[str, Records]:
    """Reads a manifest and splits its images.

    Args:
      directory: Path of a `.csv` or `.parquet` file.
      split_by: `"class"`, or `"image"` for classes that all splits share.
      test_share: Share of the classes that are kept for testing; 0 for none.
      validation_share: Share of the classes that select the checkpoint.

    Returns:
      The records of each split, in the manifest's order.

    Raises:
      ValueError: A share is out of its range, or there is no such `split_by`.
      DataError: The manifest is missing or cannot be read, it lacks a column or a
        value, none of its first files exist, or they are too few to split.
    """
    shares = Shares(test_share, validation_share)
    path = pathlib.Path(directory).expanduser()
    try:
        is_file = path.is_file()
    except OSError as error:
        reason = error.strerror or error
        raise _error(
            path, f"cannot be read ({reason}); grant read permission."
        ) from error
    if not is_file:
        raise _error(path, "there is no such manifest; give a .csv or .parquet file.")
    table = read_table(path)
    level_names = _check_columns(path, list(table))
    if not table["path"]:
        raise _error(path, "lists no image; add one row per image.")
    for name in ("path", *level_names):
        check_values(path, name, table[name])
    _check_files(path, table["path"])
    columns = [np.array(table[name]) for name in level_names]
    further = {
        name: np.array(values)
        for name, values in table.items()
        if name and name not in ("path", *level_names)
    }
    return labelled_files.create_records(
        "manifest",
        path.parent,
        table["path"],
        columns,
        further,
        # Levels above the class are called as their columns are.
        level_titles=(*(x.replace("_", " ") for x in level_names[:-1]), "class"),
        split_by=split_by,
        shares=shares,
    )


def read_table(path: pathlib.Path) -> dict[str, list[str]]:
    """Returns a file's columns by name, as text; missing values are empty.

    Args:
      path: Path of a `.csv` or `.parquet` file.

    Raises:
      DataError: The file is neither .csv nor .parquet, or cannot be read.
    """
    readers = {".csv": _read_csv, ".parquet": _read_parquet}
    if path.suffix.lower() not in readers:
        raise _error(
            path, "is neither .csv nor .parquet; save the list as one of them."
        )
    try:
        return readers[path.suffix.lower()](path)
    except OSError as error:
        raise _error(path, f"cannot be read ({error}); save it again.") from error


def check_values(path: pathlib.Path, name: str, values: Sequence[str]) -> None:
    """Checks that no value of a column is missing.

    Args:
      path: Path of the table.
      name: Name of the column.
      values: Values of the column.

    Raises:
      DataError: One is; the message has its row.
    """
    for row, value in enumerate(values):
        if not value.strip():
            raise _error(
                path, f"row {row + 1:,} has no {name}; add it or remove the row."
            )


def _read_csv(path: pathlib.Path) -> dict[str, list[str]]:
    lines = io.StringIO(texts.read_list(path), newline="")
    reader = csv.reader(lines, strict=True)
    rows: list[list[str]] = []
    names: list[str] = []
    start = 1
    try:
        for row in reader:
            if not names:
                names = row
                _check_header(path, names)
            elif row:
                rows.append(_check_row(path, start, names, row))
            start = reader.line_num + 1
    except csv.Error as error:
        raise _error(
            path,
            f"line {start:,} cannot be read ({error}); close its quotes, and write a "
            'quote within a value as "".',
        ) from error
    if not names:
        raise _error(path, "is empty; begin it with the line path,label.")
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}


def _check_header(path: pathlib.Path, names: Sequence[str]) -> None:
    """Checks that a table has a header, with commas between its columns.

    Raises:
      DataError: Another character separates the columns, or the first line is a row.
    """
    if "path" in names:
        return
    header = ",".join(names)
    for separator, noun in _SEPARATORS.items():
        if separator in header:
            raise _error(
                path,
                f"its columns are separated by {noun}, not by commas; save it as CSV "
                "with commas.",
            )
    if any(name.lower().endswith(folder.EXTENSIONS) for name in names):
        raise _error(
            path,
            f"has no header, its first line is {files.printable(header)!r}; put a line "
            "with the names of the columns above it, e.g. path,label.",
        )


def _check_row(
    path: pathlib.Path, line: int, names: Sequence[str], row: list[str]
) -> list[str]:
    """Returns a row with as many values as there are columns; missing ones are empty.

    Raises:
      DataError: It has more, or a path or label has a line break.
    """
    if any(row[len(names) :]):
        raise _error(
            path,
            f"line {line:,} has {len(row)} values for {len(names)} columns; put a "
            "value with a comma in quotes.",
        )
    for name, value in zip(names, row, strict=False):
        if "\n" in value and (name in _KEYS or name.startswith("level_")):
            raise _error(
                path,
                f"line {line:,} has a {name} of several lines; close its quotes in its "
                "own line.",
            )
    return (row + [""] * len(names))[: len(names)]


def _read_parquet(path: pathlib.Path) -> dict[str, list[str]]:
    # Slow to import, and few manifests are Parquet.
    with needs_extra("search"):
        import pyarrow
        import pyarrow.parquet

    try:
        files.check_file(path)
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowInvalid as error:
        raise OSError(error) from error
    return {name: _to_strings(table[name].to_pylist()) for name in table.column_names}


def _to_strings(values: Sequence[object]) -> list[str]:
    # Missing numbers are None or NaN, which differs from itself.
    return ["" if value is None or value != value else str(value) for value in values]


def _check_columns(path: pathlib.Path, names: list[str]) -> list[str]:
    """Returns the names of the levels."""
    num_levels = sum(name.startswith("level_") for name in names)
    level_names = [f"level_{level + 1}" for level in range(max(num_levels, 1))]
    missing = [name for name in ("path", *level_names) if name not in names]
    if missing:
        raise _error(
            path,
            f"has no column {missing[0]!r} (its columns are "
            f"{', '.join(names) or 'none'}); it needs the columns "
            "path,level_1,...,level_n.",
        )
    return level_names


def _check_files(path: pathlib.Path, paths: Sequence[str]) -> None:
    first = paths[:_NUM_CHECKED]
    # Unlike `Path.exists`, it returns False on an OSError.
    if not any(os.path.exists(path.parent / name) for name in first):
        raise _error(
            path,
            f"none of its first {len(first)} files exist, e.g. "
            f"{files.printable(path.parent / first[0])}; paths are relative to the "
            "manifest's folder.",
        )


def _error(path: pathlib.Path, reason: str) -> errors.DataError:
    return errors.DataError(f"{files.printable(path)}: {reason}")
