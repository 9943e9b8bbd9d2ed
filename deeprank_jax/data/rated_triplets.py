"""Which of two images did a person find more similar? Files of rated triplets.

Convention: triplets are `[T, 3]` rows: anchor (the "query" of the files), positive,
negative; of all splits' records in turn, or of one split where that is said.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
import csv
import dataclasses
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
_NUM_NAMED = 3
# From which share of records with a file name of their own it tells which they are.
_OWN_NAME = 0.9

# Where a triplet stands in its file, and the names of its three images.
_Row = tuple[str, tuple[str, ...]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RatedTriplets:
    """Triplets of a file, and what had to be left out.

    Attributes:
      indices: `[T, 3]` int64, those that can be used.
      num_in_file: how many the file holds.
      num_missing: how many of them hold an image that is no record.
      missing: where each such image stands first, by its name in the file.
      num_in_other_folders: how many of these have the file name of a record that lies
        in another folder.
      num_elsewhere: how many more hold an image of another split.
    """

    indices: np.ndarray
    num_in_file: int
    num_missing: int = 0
    missing: Mapping[str, str] = dataclasses.field(default_factory=dict)
    num_in_other_folders: int = 0
    num_elsewhere: int = 0

    def describe(self) -> str:
        """Returns in a phrase what can be used of the file, naming what is missing."""
        parts = [f"{len(self.indices):,} of {self.num_in_file:,} triplets"]
        if self.num_elsewhere:
            parts.append(f"{self.num_elsewhere:,} hold images of other splits")
        if self.num_missing:
            parts.append(f"{self.num_missing:,} hold {self.describe_missing()}")
        return ", ".join(parts)

    def describe_missing(self) -> str:
        """Returns how many images are no records, and the first of them."""
        shown = ", ".join(
            f"{image!r} ({where})"
            for image, where in itertools.islice(self.missing.items(), _NUM_NAMED)
        )
        others = ""
        if self.num_in_other_folders:
            others = (
                f"; records in other folders have the file names of "
                f"{self.num_in_other_folders:,}"
            )
        return (
            f"images that are no records ({len(self.missing):,} images, e.g. {shown}"
            f"{others})"
        )

    def of_rows(self, start: int, stop: int) -> "RatedTriplets":
        """Returns the triplets of some rows alone, which count from 0 then."""
        inside = ((self.indices >= start) & (self.indices < stop)).all(axis=1)
        return dataclasses.replace(
            self,
            indices=self.indices[inside] - start,
            num_elsewhere=self.num_elsewhere + int(np.sum(~inside)),
        )


def read_rated_splits(
    path: str, splits: Mapping[str, Records], names: Sequence[str]
) -> dict[str, RatedTriplets]:
    """Reads the rated triplets of some splits, to be judged by.

    Args:
      path: as of `read_rated_triplets`; `{split}` in it stands for the split, each
        then having a file of its own.
      splits: the records of all splits, so that an image of another split is told
        from one that nobody knows.
      names: the splits to read for.

    Returns:
      By name the triplets whose images are all of the split, as rows of its records.
      Of a file for all, a split may have none.

    Raises:
      DataError: as `read_rated_triplets`; or a split has no triplet in the file of its
        own, or none has in that of all.
    """
    has_own = "{split}" in path
    paths = {name: path.replace("{split}", name) for name in names}
    # A file for all is read, and warned of, once.
    read = {
        file: read_rated_triplets(file, splits)
        for file in dict.fromkeys(paths.values())
    }
    ends = np.cumsum([len(records) for records in splits.values()]).tolist()
    rows = dict(zip(splits, itertools.pairwise([0, *ends]), strict=True))
    found = {name: read[paths[name]].of_rows(*rows[name]) for name in names}
    empty = [name for name in names if not len(found[name].indices)]
    if empty and (has_own or len(empty) == len(names)):
        file = pathlib.Path(paths[empty[0]]).expanduser()
        wanted = empty[0] if has_own else " or ".join(empty)
        raise _error(
            file,
            f"no triplet has all three images in {wanted} "
            f"({found[empty[0]].describe()}); rate images of one split together.",
        )
    for name in empty:
        logging.warning(
            "%s: no triplet has all three images in %s, which is evaluated without.",
            files.printable(path),
            name,
        )
    return found


def read_rated_triplets(
    path: str | os.PathLike[str], splits: Mapping[str, Records]
) -> RatedTriplets:
    """Reads rated triplets, and finds their images among the records.

    The file is a CSV with the columns `query`, `positive` and `negative` (others are
    ignored), or has 4 lines a triplet as the paper's: text query, query, positive and
    negative image, each a URL or a path. An image is the record whose description is
    the same, else the only one where one of the two is the end of the other, as
    `cats/1.jpg` is of `photos/cats/1.jpg`; of records that are the end of the path, the
    longest. Where nine in ten records have a file name of their own, that alone is
    enough, whatever the folders. Triplets with an image that is no record are left out,
    with a warning.

    Args:
      path: the file.
      splits: the records of each split.

    Returns:
      At least one triplet, and which images are missing.

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
            known = [names.find(image) for image in images]
        except ValueError as error:
            raise _error(file, f"{where}: {error}") from error
        _check_distinct(file, where, images, known)
        if None not in known:
            triplets.append(known)
            continue
        num_missing += 1
        for image, index in zip(images, known, strict=True):
            if index is None:
                missing.setdefault(image, where)
    found = RatedTriplets(
        indices=np.array(triplets, np.int64).reshape(-1, 3),
        num_in_file=len(rows),
        num_missing=num_missing,
        missing=missing,
        num_in_other_folders=len(names.elsewhere),
    )
    _report_missing(file, found)
    return found


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
    """Finds records by what a file calls them.

    Attributes:
      elsewhere: images that are no records, though one in another folder has their
        file name.
    """

    def __init__(self, splits: Mapping[str, Records]):
        self.elsewhere: set[str] = set()
        self._names = descriptions(splits)
        self._whole, self._by_file = defaultdict(list), defaultdict(list)
        for index, name in enumerate(self._names):
            self._whole[name].append(index)
            self._by_file[posixpath.basename(name)].append(index)
        # Not so where the folder of each class has its 1.jpg.
        own = sum(len(found) == 1 for found in self._by_file.values())
        self._file_tells = own >= _OWN_NAME * len(self._names)

    def find(self, image: str) -> int | None:
        """Returns the record, None if there is no such.

        Raises:
          ValueError: it could be several.
        """
        found = self._whole.get(image) or self._find_by_path(image)
        if len(found) > 1:
            first, second = (self._names[i] for i in found[:2])
            raise ValueError(
                f"{image!r} could be {len(found)} records, e.g. {first!r} and "
                f"{second!r}; give the whole path."
            )
        return found[0] if found else None

    def _find_by_path(self, image: str) -> list[int]:
        path = parse.unquote(parse.urlsplit(image).path) if "://" in image else image
        named = self._by_file.get(posixpath.basename(path), [])
        found = [i for i in named if _is_end(path, of=self._names[i])]
        # Of records that are the end of the path, the longest.
        inside = [i for i in named if _is_end(self._names[i], of=path)]
        longest = max((len(self._names[i]) for i in inside), default=0)
        ends = [i for i in inside if len(self._names[i]) == longest]
        found = sorted({*found, *ends})
        if not found and len(named) == 1 and self._file_tells:
            found = named
        if named and not found:
            self.elsewhere.add(image)
        return found


def _is_end(path: str, *, of: str) -> bool:
    return f"/{of.lstrip('/')}".endswith(f"/{path.lstrip('/')}")


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


def _report_missing(file: pathlib.Path, found: RatedTriplets) -> None:
    if not found.num_missing:
        return
    text = (
        f"{found.num_missing:,} of {found.num_in_file:,} triplets hold "
        f"{found.describe_missing()}"
    )
    if not len(found.indices):
        raise _error(
            file,
            f"{text}, so that none is left; name images as the records are named, or "
            "give the config of their dataset.",
        )
    logging.warning("%s: %s; they are left out.", files.printable(file), text)


def _error(file: pathlib.Path, reason: str) -> errors.DataError:
    return errors.DataError(f"{files.printable(file)}: {reason}")
