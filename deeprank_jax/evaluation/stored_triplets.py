"""Evaluation triplets on disk, checked against their records when read."""

from collections.abc import Sequence
import hashlib
import json
import os
import pathlib

import numpy as np

from deeprank_jax import files
from deeprank_jax.errors import DataError

_RECORDS, _OPTIONS, _HEADER = "# records ", "# drawn ", "anchor,positive,negative"
_DIGEST = "# sha256 "
_RELEVANCE = " relevance="


class DamagedTripletsError(DataError):
    """A file of triplets is not as it was written."""


def save_triplets(
    path: str | os.PathLike[str], triplets: np.ndarray, fingerprint: str, options: str
) -> None:
    """Writes triplets as CSV, marked with their records and sampling options.

    Args:
      path: File to write, whole or not at all.
      triplets: `[T, 3]` int, indices of records.
      fingerprint: `Records.fingerprint` of the split.
      options: All options that determine the triplets, e.g. "num=20000 seed=0", in one
        line.

    Raises:
      ValueError: `options` is not one line.
    """
    if len(options.splitlines()) != 1:
        raise ValueError(f"options must be one line of text, got {options!r}.")
    start = [_RECORDS + fingerprint, _OPTIONS + options]
    rows = [",".join(map(str, triplet)) for triplet in np.asarray(triplets).tolist()]
    rows = [_HEADER, *rows]
    lines = [*start, _DIGEST + _digest([*start, *rows]), *rows]
    files.create_folder(pathlib.Path(path).parent)
    files.write_text(path, "\n".join(lines) + "\n")


def load_triplets(
    path: str | os.PathLike[str], fingerprint: str, options: str
) -> np.ndarray:
    """Reads a file written by `save_triplets`.

    Args:
      path: File to read.
      fingerprint: `Records.fingerprint` of the split to be evaluated.
      options: Options with which `save_triplets` would be called now.

    Returns:
      `[T, 3]` int64; `[0, 3]` if the file holds none.

    Raises:
      DataError: The triplets belong to other records or were sampled with other
        options, or the file cannot be read.
      DamagedTripletsError: The file has changed since it was written.
    """
    lines = _read_lines(path)
    starts = (_RECORDS, _OPTIONS, _HEADER)
    if len(lines) < 3 or not all(map(str.startswith, lines, starts)):
        raise DamagedTripletsError(
            f"{path}: not a file of triplets (it should begin with the lines "
            f"'{_RECORDS}...', '{_OPTIONS}...' and '{_HEADER}'); delete it to have it "
            "drawn again."
        )
    saved_records = lines[0].removeprefix(_RECORDS)
    if saved_records != fingerprint:
        raise DataError(
            f"{path}: these triplets belong to records {saved_records}, the split is "
            f"now {fingerprint}; delete the file to draw them again, or use the old "
            "data."
        )
    saved_options = lines[1].removeprefix(_OPTIONS)
    if _without_empty(saved_options) != _without_empty(options):
        raise DataError(
            f"{path}: these triplets were drawn with {saved_options}, this run has "
            f"{options}; delete the file to draw them again, or use the old options."
        )
    try:
        triplets = [[int(index) for index in line.split(",")] for line in lines[3:]]
        return np.array(triplets, np.int64).reshape(len(triplets), 3)
    except ValueError as error:
        raise DamagedTripletsError(
            f"{path}: not three record numbers on every line ({error}); delete the "
            "file to have it drawn again."
        ) from error


def _read_lines(path: str | os.PathLike[str]) -> list[str]:
    """Returns the lines of a file without that of its digest.

    Raises:
      DataError: The file cannot be read.
      DamagedTripletsError: It has another digest.
    """
    try:
        content = files.read_bytes(path, files.MAX_TEXT)
        lines = content.decode().removesuffix("\n").split("\n")
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); make it readable, or delete "
            "it to have the triplets drawn again."
        ) from error
    except UnicodeDecodeError as error:
        raise DamagedTripletsError(
            f"{path}: not a text file ({error}); delete it to have the triplets drawn "
            "again."
        ) from error
    # Earlier versions wrote no digest.
    if len(lines) > 2 and lines[2].startswith(_DIGEST):
        digest = lines.pop(2).removeprefix(_DIGEST)
        if digest != _digest(lines):
            raise DamagedTripletsError(
                f"{path}: has changed since it was written; delete it to have the "
                "triplets drawn again."
            )
    return lines


def _digest(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _without_empty(options: str) -> str:
    """Returns the options without those of the relevance that are empty.

    Older versions wrote the options of all kinds of relevance, empty or not.
    """
    others, marker, relevance = options.partition(_RELEVANCE)
    try:
        values = files.parse_json(relevance)
    except ValueError:
        return options
    if not isinstance(values, dict):
        return options
    values = {name: value for name, value in values.items() if value}
    return others + marker + json.dumps(values, sort_keys=True)
