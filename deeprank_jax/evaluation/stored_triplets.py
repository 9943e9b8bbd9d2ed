"""Evaluation triplets on disk: drawn once, checked against their records when read."""

import json
import os
import pathlib

import numpy as np

from deeprank_jax import files

_RECORDS, _DRAWN, _HEADER = "# records ", "# drawn ", "anchor,positive,negative"


def save_triplets(
    path: str | os.PathLike[str], triplets: np.ndarray, fingerprint: str, drawn: str
) -> None:
    """Writes triplets as CSV, marked with their records and how they were drawn.

    Args:
      path: the file, written whole or not at all.
      triplets: `[T, 3]` ints, indices of records.
      fingerprint: `Records.fingerprint` of the split.
      drawn: all that decided which triplets these are, e.g. "num=20000 seed=0", in
        one line.

    Raises:
      ValueError: `drawn` is not one line.
    """
    if len(drawn.splitlines()) != 1:
        raise ValueError(f"drawn must be one line of text, got {drawn!r}.")
    lines = [_RECORDS + fingerprint, _DRAWN + drawn, _HEADER]
    lines += [",".join(map(str, triplet)) for triplet in np.asarray(triplets).tolist()]
    files.create_folder(pathlib.Path(path).parent)
    files.write_text(path, "\n".join(lines) + "\n")


def load_triplets(
    path: str | os.PathLike[str], fingerprint: str, drawn: str
) -> np.ndarray:
    """Reads what `save_triplets` wrote.

    Args:
      path: the file.
      fingerprint: `Records.fingerprint` of the split to be evaluated.
      drawn: as it would be given to `save_triplets` now.

    Returns:
      `[T, 3]` int64; `[0, 3]` if the file holds none.

    Raises:
      ValueError: the triplets belong to other records or were drawn in another way,
        or the file is not of this kind.
    """
    lines = pathlib.Path(path).read_text().splitlines()
    starts = (_RECORDS, _DRAWN, _HEADER)
    if len(lines) < 3 or not all(map(str.startswith, lines, starts)):
        raise ValueError(
            f"{path}: not a file of triplets (it should begin with the lines "
            f"'{_RECORDS}...', '{_DRAWN}...' and '{_HEADER}'); delete it to have it "
            "drawn again."
        )
    found = lines[0].removeprefix(_RECORDS)
    if found != fingerprint:
        raise ValueError(
            f"{path}: these triplets belong to records {found}, the split is now "
            f"{fingerprint}; delete the file to draw them again, or use the old data."
        )
    found = lines[1].removeprefix(_DRAWN)
    if _without_empty_options(found) != _without_empty_options(drawn):
        raise ValueError(
            f"{path}: these triplets were drawn with {found}, this run has {drawn}; "
            "delete the file to draw them again, or use the old options."
        )
    try:
        triplets = [[int(index) for index in line.split(",")] for line in lines[3:]]
        return np.array(triplets, np.int64).reshape(len(triplets), 3)
    except ValueError as error:
        raise ValueError(
            f"{path}: not three record numbers on every line ({error}); delete the "
            "file to have it drawn again."
        ) from error


def _without_empty_options(settings: str) -> str:
    """Returns settings without the empty options that relevances once had."""
    prefix, key, relevance = settings.partition(" relevance=")
    try:
        options = json.loads(relevance)
    except ValueError:
        return settings
    options = {name: value for name, value in options.items() if value}
    return prefix + key + json.dumps(options, sort_keys=True)
