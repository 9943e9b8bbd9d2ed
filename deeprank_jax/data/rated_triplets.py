"""Files of triplets that people rated.

Convention: triplets are `[T, 3]` rows: anchor (the "query" of the files), positive,
negative. Rows count the records of all splits in turn, unless a docstring names one.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
import csv
import dataclasses
import io
import itertools
import os
import pathlib
import posixpath
from urllib import parse

from absl import logging
import numpy as np

from deeprank_jax import errors, files
from deeprank_jax.data.records import Records

_COLUMNS = ("query", "positive", "negative")
_FORMATS = (
    "it needs a header line with query,positive,negative, or 4 lines per triplet: text "
    "query, query, positive and negative image"
)
_NUM_EXAMPLES = 3
# Share of records with a unique file name at which that name alone identifies one.
_UNIQUE_SHARE = 0.9

# Position of a triplet in its file, and the names of its three images.
_Row = tuple[str, tuple[str, ...]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RatedTriplets:
    """Triplets of a file, and the numbers of those that cannot be used.

    Attributes:
      indices: `[T, 3]` int64, rows of the usable triplets.
      num_in_file: Number of triplets in the file.
      num_missing: Number of triplets with an image that is no record.
      missing: Position of the first use of each such image, by its name in the file.
      num_in_other_folders: Number of these images with the file name of a record in
        another folder.
      num_elsewhere: Number of other triplets with an image of another split.
    """

    indices: np.ndarray
    num_in_file: int
    num_missing: int = 0
    missing: Mapping[str, str] = dataclasses.field(default_factory=dict)
    num_in_other_folders: int = 0
    num_elsewhere: int = 0

    def describe(self) -> str:
        """Returns a phrase with the numbers of usable and unusable triplets."""
        parts = [f"{len(self.indices):,} of {self.num_in_file:,} triplets"]
        if self.num_elsewhere:
            parts.append(f"{self.num_elsewhere:,} contain images of other splits")
        if self.num_missing:
            parts.append(f"{self.num_missing:,} contain {self.describe_missing()}")
        return ", ".join(parts)

    def describe_missing(self) -> str:
        """Returns a phrase with the number of images that are no records, and some."""
        examples = ", ".join(
            f"{image!r} ({where})"
            for image, where in itertools.islice(self.missing.items(), _NUM_EXAMPLES)
        )
        others = ""
        if self.num_in_other_folders:
            others = (
                f"; records in other folders have the file names of "
                f"{self.num_in_other_folders:,}"
            )
        return (
            f"images that are no records ({len(self.missing):,} images, e.g. {examples}"
            f"{others})"
        )

    def of_rows(self, start: int, stop: int) -> "RatedTriplets":
        """Returns the triplets within some rows, counted from `start`.

        Args:
          start: First row.
          stop: Row after the last.
        """
        inside = ((self.indices >= start) & (self.indices < stop)).all(axis=1)
        return dataclasses.replace(
            self,
            indices=self.indices[inside] - start,
            num_elsewhere=self.num_elsewhere + int(np.sum(~inside)),
        )


def read_rated_splits(
    path: str, splits: Mapping[str, Records], names: Sequence[str]
) -> dict[str, RatedTriplets]:
    """Reads the rated triplets of some splits.

    Args:
      path: Path of a file as for `read_rated_triplets`, one for all splits, or with
        `{split}` in place of the name of the split, one for each.
      splits: Records of all splits, to recognise images of other splits.
      names: Names of the splits to read.

    Returns:
      The triplets whose images are all of the split, by split, as rows of its records.
      If one file serves all splits, a split may have none.

    Raises:
      DataError: As `read_rated_triplets`; or a split has no triplet in its file, or no
        split has one in the common file.
    """
    is_per_split = "{split}" in path
    paths = {name: path.replace("{split}", name) for name in names}
    # A common file is read, with its warnings, once.
    triplets_of_file = {
        file: read_rated_triplets(file, splits)
        for file in dict.fromkeys(paths.values())
    }
    ends = np.cumsum([len(records) for records in splits.values()]).tolist()
    rows = dict(zip(splits, itertools.pairwise([0, *ends]), strict=True))
    triplets = {
        name: triplets_of_file[paths[name]].of_rows(*rows[name]) for name in names
    }
    empty = [name for name in names if not len(triplets[name].indices)]
    if empty and (is_per_split or len(empty) == len(names)):
        file = pathlib.Path(paths[empty[0]]).expanduser()
        where = empty[0] if is_per_split else " or ".join(empty)
        raise _error(
            file,
            f"no triplet has all three images in {where} "
            f"({triplets[empty[0]].describe()}); rate images of one split together.",
        )
    for name in empty:
        logging.warning(
            "%s: no triplet has all three images in %s, which is evaluated without "
            "rated triplets.",
            files.printable(path),
            name,
        )
    return triplets


def read_rated_triplets(
    path: str | os.PathLike[str], splits: Mapping[str, Records]
) -> RatedTriplets:
    """Reads rated triplets and finds their images among the records.

    The file is a CSV with the columns `query`, `positive` and `negative` (others are
    ignored), or has 4 lines per triplet as the paper's: text query, query, positive and
    negative image, each a URL or a path. An image is the record with the same
    description, else the only one where either is the end of the other, as `cats/1.jpg`
    is of `photos/cats/1.jpg`; of several records that are the end of the path, the
    longest. Where nine in ten records have a unique file name, that name is enough in
    any folder. Triplets with an image that is no record are skipped with a warning.

    Args:
      path: Path of the file.
      splits: Records by split.

    Returns:
      At least one triplet, and the missing images.

    Raises:
      DataError: The file is missing or of another format, a triplet contains an image
        twice, an image could be several records, or no triplet can be used.

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
        raise _error(file, f"contains no triplet; {_FORMATS}.")
    names = _Names(splits)
    triplets, missing, num_missing = [], {}, 0
    for where, images in rows:
        try:
            indices = [names.find(image) for image in images]
        except ValueError as error:
            raise _error(file, f"{where}: {error}") from error
        _check_distinct(file, where, images, indices)
        if None not in indices:
            triplets.append(indices)
            continue
        num_missing += 1
        for image, index in zip(images, indices, strict=True):
            if index is None:
                missing.setdefault(image, where)
    rated = RatedTriplets(
        indices=np.array(triplets, np.int64).reshape(-1, 3),
        num_in_file=len(rows),
        num_missing=num_missing,
        missing=missing,
        num_in_other_folders=len(names.elsewhere),
    )
    _report_missing(file, rated)
    return rated


def write_rated_triplets(
    path: str | os.PathLike[str], triplets: np.ndarray, splits: Mapping[str, Records]
) -> None:
    """Writes triplets as a CSV file for `read_rated_triplets`.

    Args:
      path: Path of the file.
      triplets: `[T, 3]` ints, rows of all splits in turn.
      splits: Records by split.

    Raises:
      WriteError: The file cannot be written.
    """
    names = descriptions(splits)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(_COLUMNS)
    writer.writerows([names[i] for i in row] for row in triplets.tolist())
    files.create_folder(pathlib.Path(path).parent)
    files.write_text(path, text.getvalue())


def descriptions(splits: Mapping[str, Records]) -> list[str]:
    """Returns the descriptions of the records of all splits in turn."""
    return [r.describe(i) for r in splits.values() for i in range(len(r))]


class _Names:
    """Finds records by the names of images in a file.

    Attributes:
      elsewhere: Images that are no records, but have the file name of a record in
        another folder.
    """

    def __init__(self, splits: Mapping[str, Records]):
        self.elsewhere: set[str] = set()
        self._names = descriptions(splits)
        self._whole, self._by_file = defaultdict(list), defaultdict(list)
        for index, name in enumerate(self._names):
            self._whole[name].append(index)
            self._by_file[posixpath.basename(name)].append(index)
        # Not enough where the folder of each class has its 1.jpg.
        num_unique = sum(len(rows) == 1 for rows in self._by_file.values())
        self._file_is_enough = num_unique >= _UNIQUE_SHARE * len(self._names)

    def find(self, image: str) -> int | None:
        """Returns the row of a record, None if there is none.

        Args:
          image: Name of an image in the file.

        Raises:
          ValueError: The name could be that of several records.
        """
        rows = self._whole.get(image) or self._find_by_path(image)
        if len(rows) > 1:
            first, second = (self._names[i] for i in rows[:2])
            raise ValueError(
                f"{image!r} could be {len(rows)} records, e.g. {first!r} and "
                f"{second!r}; give the whole path."
            )
        return rows[0] if rows else None

    def _find_by_path(self, image: str) -> list[int]:
        path = parse.unquote(parse.urlsplit(image).path) if "://" in image else image
        candidates = self._by_file.get(posixpath.basename(path), [])
        longer = [i for i in candidates if _is_end(path, of=self._names[i])]
        # Of records that are the end of the path, the longest.
        shorter = [i for i in candidates if _is_end(self._names[i], of=path)]
        longest = max((len(self._names[i]) for i in shorter), default=0)
        ends = [i for i in shorter if len(self._names[i]) == longest]
        rows = sorted({*longer, *ends})
        if not rows and len(candidates) == 1 and self._file_is_enough:
            rows = candidates
        if candidates and not rows:
            self.elsewhere.add(image)
        return rows


def _is_end(path: str, *, of: str) -> bool:
    return f"/{of.lstrip('/')}".endswith(f"/{path.lstrip('/')}")


def _read_rows(file: pathlib.Path) -> Iterator[_Row]:
    try:
        text = files.read_text(file, encoding="utf-8-sig")
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
                    "add it or remove the row.",
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
            # A text query has neither, so this finds lines that are out of step.
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
                f"lines, not a multiple of 4; {_FORMATS}.",
            )
        yield where, images


def _check_distinct(
    file: pathlib.Path, where: str, images: Sequence[str], rows: Sequence[int | None]
) -> None:
    ids = [x if i is None else i for x, i in zip(images, rows, strict=True)]
    for a, b in itertools.combinations(range(3), 2):
        if ids[a] == ids[b]:
            raise _error(
                file,
                f"{where} contains an image twice: its {_COLUMNS[a]} {images[a]!r} is "
                f"also its {_COLUMNS[b]}; remove the row.",
            )


def _report_missing(file: pathlib.Path, rated: RatedTriplets) -> None:
    if not rated.num_missing:
        return
    text = (
        f"{rated.num_missing:,} of {rated.num_in_file:,} triplets contain "
        f"{rated.describe_missing()}"
    )
    if not len(rated.indices):
        raise _error(
            file,
            f"{text}, so none can be used; name images as the records are named, or "
            "give the config of their dataset.",
        )
    logging.warning("%s: %s; they are skipped.", files.printable(file), text)


def _error(file: pathlib.Path, reason: str) -> errors.DataError:
    return errors.DataError(f"{files.printable(file)}: {reason}")
