"""Which of two images did a person find more similar? Files of rated triplets.

Convention: triplets are `[T, 3]` rows of all splits' records in turn: anchor (the
"query" of the files), positive, negative.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
import csv
import itertools
import os
import pathlib
import posixpath
from urllib import parse

from absl import logging
import numpy as np

from deeprank_jax.data import errors, files
from deeprank_jax.data.records import Records

_COLUMNS = ("query", "positive", "negative")
_FORMATS = (
    "it needs a header line with query,positive,negative, or 4 lines per triplet: text "
    "query, query, positive and negative image"
)
_NUM_NAMED = 3

# Where a triplet stands in its file, and the names of its three images.
_Row = tuple[str, tuple[str, ...]]


def read_rated_triplets(
    path: str | os.PathLike[str], splits: Mapping[str, Records]
) -> np.ndarray:
    """Reads rated triplets, and finds their images among the records.

    The file is a CSV with the columns `query`, `positive` and `negative` (others are
    ignored), or has 4 lines a triplet as the paper's: text query, query, positive and
    negative image, each a URL or a path. An image is the record whose description is
    the same, else the only one with the same file name; of several, the only one whose
    description is the end of the path. Triplets with an image that is no record are
    left out, with a warning.

    Args:
      path: the file.
      splits: the records of each split.

    Returns:
      `[T, 3]` int64, at least one.

    Raises:
      DataError: the file is missing or of another format, a triplet holds an image
        twice, an image could be several records, or none of the triplets is left.

    References:
      Wang et al., Learning Fine-grained Image Similarity with Deep Ranking, 2014,
      https://arxiv.org/abs/1404.4661.
    """
    file = pathlib.Path(path).expanduser()
    try:
        rows = list(_read_rows(file))
    except csv.Error as error:
        raise _error(file, f"cannot be read ({error}); {_FORMATS}.") from error
    if not rows:
        raise _error(file, f"holds no triplet; {_FORMATS}.")
    names = _Names(splits)
    triplets, missing, num_missing = [], {}, 0
    for where, images in rows:
        try:
            found = [names.find(image) for image in images]
        except ValueError as error:
            raise _error(file, f"{where}: {error}") from error
        _check_distinct(file, where, images, found)
        if None not in found:
            triplets.append(found)
            continue
        num_missing += 1
        for image, index in zip(images, found, strict=True):
            if index is None:
                missing.setdefault(image, where)
    if missing:
        _report_missing(file, missing, num_missing, len(rows))
    return np.array(triplets, np.int64)


def write_rated_triplets(
    path: str | os.PathLike[str], triplets: np.ndarray, splits: Mapping[str, Records]
) -> None:
    """Writes triplets as a CSV that `read_rated_triplets` reads.

    Args:
      path: the file.
      triplets: `[T, 3]` ints.
      splits: the records of each split.
    """
    names = descriptions(splits)
    file = pathlib.Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(_COLUMNS)
        writer.writerows([names[i] for i in row] for row in triplets.tolist())


def descriptions(splits: Mapping[str, Records]) -> list[str]:
    """Returns what the records of all splits, in turn, are known by."""
    return [r.describe(i) for r in splits.values() for i in range(len(r))]


class _Names:
    """Finds records by what a file calls them."""

    def __init__(self, splits: Mapping[str, Records]):
        self._names = descriptions(splits)
        self._whole, self._by_file = defaultdict(list), defaultdict(list)
        for index, name in enumerate(self._names):
            self._whole[name].append(index)
            self._by_file[posixpath.basename(name)].append(index)

    def find(self, image: str) -> int | None:
        """Returns the record, None if there is no such.

        Raises:
          ValueError: it could be several.
        """
        path = image
        found = self._whole.get(image)
        if not found:
            if "://" in image:
                path = parse.unquote(parse.urlsplit(image).path)
            found = self._by_file.get(posixpath.basename(path), [])
        if len(found) > 1:
            ends = [i for i in found if f"/{path}".endswith(f"/{self._names[i]}")]
            found = ends or found
        if len(found) > 1:
            first, second = (self._names[i] for i in found[:2])
            raise ValueError(
                f"{image!r} could be {len(found)} records, e.g. {first!r} and "
                f"{second!r}; give the whole path."
            )
        return found[0] if found else None


def _read_rows(file: pathlib.Path) -> Iterator[_Row]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise _error(file, f"cannot be read ({reason}); {_FORMATS}.") from error
    lines = text.split("\n")
    header = next(csv.reader(lines[:1]), [])
    if file.suffix.lower() == ".csv" or set(_COLUMNS) <= set(header):
        return _read_csv(file, lines)
    return _read_four_lines(file, lines)


def _read_csv(file: pathlib.Path, lines: Sequence[str]) -> Iterator[_Row]:
    reader = csv.DictReader(lines, restval="")
    names = reader.fieldnames or ()
    absent = [name for name in _COLUMNS if name not in names]
    if absent:
        raise _error(
            file,
            f"has no column {absent[0]!r} (its first line is {','.join(names)!r}); "
            f"{_FORMATS}.",
        )
    for number, row in enumerate(reader, start=1):
        where = f"row {number:,}"
        for name in _COLUMNS:
            if not row[name]:
                raise _error(
                    file,
                    f"{where} has no {name} ({','.join(row[x] for x in _COLUMNS)!r}); "
                    "fill it in or remove the row.",
                )
        yield where, tuple(row[name] for name in _COLUMNS)


def _read_four_lines(file: pathlib.Path, lines: Sequence[str]) -> Iterator[_Row]:
    stripped = [line.strip() for line in lines]
    while stripped and not stripped[-1]:
        stripped.pop()
    for start in range(0, len(stripped), 4):
        where = f"row {start // 4 + 1:,} (lines {start + 1:,} to {start + 4:,})"
        images = tuple(stripped[start + 1 : start + 4])
        for line, image in enumerate(images, start=start + 2):
            # A text query has neither; so lines that are out of step show.
            if "/" not in image and "." not in image:
                raise _error(
                    file,
                    f"line {line:,} is {image!r}, which is neither a URL nor the name "
                    f"of an image file; {_FORMATS}.",
                )
        if len(images) < 3:
            raise _error(
                file,
                f"{where} ends after {stripped[-1]!r}: the file has {len(stripped):,} "
                f"lines, which is no multiple of 4; {_FORMATS}.",
            )
        yield where, images


def _check_distinct(
    file: pathlib.Path, where: str, images: Sequence[str], found: Sequence[int | None]
) -> None:
    known = [x if i is None else i for x, i in zip(images, found, strict=True)]
    for a, b in itertools.combinations(range(3), 2):
        if known[a] == known[b]:
            raise _error(
                file,
                f"{where} holds an image twice: its {_COLUMNS[a]} {images[a]!r} is its "
                f"{_COLUMNS[b]}; remove the row.",
            )


def _report_missing(
    file: pathlib.Path, missing: Mapping[str, str], num_missing: int, num_rows: int
) -> None:
    shown = ", ".join(
        f"{image!r} ({where})"
        for image, where in itertools.islice(missing.items(), _NUM_NAMED)
    )
    text = (
        f"{num_missing:,} of {num_rows:,} triplets hold images that are no records "
        f"({len(missing):,} images, e.g. {shown})"
    )
    if num_missing == num_rows:
        raise _error(
            file,
            f"{text}, so that none is left; name images as the records are named, or "
            "give the config of their dataset.",
        )
    logging.warning("%s: %s; they are left out.", files.printable(file), text)


def _error(file: pathlib.Path, reason: str) -> errors.DataError:
    return errors.DataError(f"{files.printable(file)}: {reason}")
