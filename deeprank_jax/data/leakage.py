"""Is what a model is judged by already in training? Classes by name, copies by look.

Convention: looks are `[N, D]` float32 in [0, 1], small copies of the images, and their
distance is the root of the mean squared difference of their values.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import json
import pathlib
import re
from typing import Any

from absl import logging
import numpy as np

from deeprank_jax import files
from deeprank_jax.data.reader import ImageReader
from deeprank_jax.data.records import Records
from deeprank_jax.descriptors.pixels import pixels

# How far apart looks, and images shrunk to 64 pixels, of a copy may be. Of photographs
# of 224 pixels and more, 99 % of copies with three quarters of the height and width and
# JPEG quality 60 are within both; a shift by 2 % of the width leads out of them.
MAX_LOOK_DISTANCE, MAX_DISTANCE = 3.0 / 255.0, 7.0 / 255.0
_MAX_SIDE = 64
# Distances held at a time: 32 MiB. Images read at a time.
_BLOCK_VALUES, _BATCH = 2**23, 256
_NUM_NAMED = 3

Progress = Callable[[Any, str], Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Overlap:
    """What a split shares with training.

    Attributes:
      num_images: that the split has.
      num_classes: that it has, at the finest level.
      seen_classes: those of them that are classes of training, too.
      namesakes: of the others those that a class of training is named like: the name,
        and the name in training.
      copies: for each image with a copy in training, what describes it, the copy, and
        their distance; None if nobody looked for copies.
    """

    num_images: int
    num_classes: int
    seen_classes: Sequence[str]
    namesakes: Sequence[tuple[str, str]]
    copies: Sequence[tuple[str, str, float]] | None

    def describe(self) -> str:
        """Returns in a phrase what is shared, naming the first of each kind."""
        parts = [f"{len(self.seen_classes):,} of {self.num_classes:,} classes"]
        if self.namesakes:
            names = [f"{own!r} like {other!r}" for own, other in self.namesakes]
            parts.append(f"{len(names):,} classes named alike ({_first(names)})")
        if self.copies is None:
            parts.append("nobody looked for copies")
        else:
            parts.append(
                f"{len(self.copies):,} of {self.num_images:,} images have a copy there"
                + self._describe_copies()
            )
        return ", ".join(parts)

    def _describe_copies(self) -> str:
        if not self.copies:
            return ""
        names = [f"{own!r} of {other!r}" for own, other, _ in self.copies]
        same = sum(distance == 0 for *_, distance in self.copies)
        return f" ({same:,} the same to the pixel; {_first(names)})"


def find_overlap(
    records: Mapping[str, Records],
    readers: Mapping[str, ImageReader],
    *,
    max_images: int,
    progress: Progress = lambda batches, description: batches,
) -> dict[str, Overlap]:
    """Finds what validation and test share with training.

    Args:
      records: the splits, `"train"` and others.
      readers: their images.
      max_images: of all splits; of more, copies are not looked for.
      progress: wraps the batches of a split that is read, given what to call them.

    Returns:
      By name, for each split but training.
    """
    copies = {}
    if sum(map(len, records.values())) <= max_images:
        copies = _find_named_copies(records, readers, progress)
    return {
        name: Overlap(
            num_images=len(records[name]),
            num_classes=len(np.unique(records[name].labels[:, -1])),
            seen_classes=seen_classes(records["train"], records[name]),
            namesakes=find_namesakes(records["train"], records[name]),
            copies=copies.get(name),
        )
        for name in records
        if name != "train"
    }


def warn_of_overlap(overlaps: Mapping[str, Overlap]) -> None:
    """Warns of what is shared and was not to be.

    That a split has classes of training was said when it was made.
    """
    for name, overlap in overlaps.items():
        if overlap.namesakes or overlap.copies:
            logging.warning(
                "The %s split shares with training: %s; its numbers speak of images "
                "that are not all new.",
                name,
                overlap.describe(),
            )


def seen_classes(train: Records, other: Records) -> list[str]:
    """Returns the names of the finest labels that both have."""
    both = np.intersect1d(train.labels[:, -1], other.labels[:, -1])
    return [other.label_names[-1][label] for label in both]


def find_namesakes(train: Records, other: Records) -> list[tuple[str, str]]:
    """Returns the names of classes that are two, but are called alike.

    Case, blanks, underscores and hyphens do not count, and of a path only its end
    does, unless several classes of a split end alike: then names tell nothing.

    Returns:
      Of `other`, and in training.
    """
    trained = np.unique(train.labels[:, -1])
    new = np.setdiff1d(other.labels[:, -1], trained)
    by_key = _names_by_key(train, trained)
    found = _names_by_key(other, new)
    return [
        (names[0], by_key[key][0])
        for key, names in found.items()
        if len(names) == 1 and len(by_key.get(key, ())) == 1
    ]


def create_looks(
    reader: ImageReader, size: int, progress: Callable[[Any], Any] = iter
) -> np.ndarray:
    """Returns a small copy of each image of a split, `[size, D]`; NaN for a bad one."""
    width = pixels(np.zeros((1, 1, 1, 3), np.uint8)).shape[1]
    looks = np.full((size, width), np.nan, np.float32)
    for batch in progress(reader.batches(_BATCH)):
        mask = batch["mask"]
        looks[batch["indices"][mask]] = pixels(batch["images"][mask])
    return looks


def find_copies(
    train: np.ndarray,
    other: np.ndarray,
    train_reader: ImageReader,
    other_reader: ImageReader,
) -> list[tuple[int, int, float]]:
    """Finds the images of a split that have a copy in training.

    The nearest of training by its look is a copy if the looks are within
    `MAX_LOOK_DISTANCE` and the images, shrunk to 64 pixels, within `MAX_DISTANCE`:
    looks alone would take fine patterns of one mean colour for each other. Memory is
    that of the looks and one block.

    Args:
      train: `[M, D]` looks of training; rows of NaN take no part.
      other: `[N, D]` looks of the split, likewise.
      train_reader: the images of training.
      other_reader: those of the split.

    Returns:
      The record, its copy and their distance as images, the nearest first.
    """
    own, nearest = _find_nearest(train, other)
    found = []
    for start in range(0, len(own), _BATCH):
        rows = own[start : start + _BATCH], nearest[start : start + _BATCH]
        pairs = zip((other_reader, train_reader), rows, strict=True)
        a, b = (_shrunk(reader.load(part)[0]) for reader, part in pairs)
        distances = np.sqrt(np.mean(np.square(a - b), axis=1))
        for i in np.flatnonzero(distances <= MAX_DISTANCE):
            found.append((int(rows[0][i]), int(rows[1][i]), float(distances[i])))
    return sorted(found, key=lambda pair: (pair[2], pair[0]))


def write_overlaps(
    path: pathlib.Path, overlaps: Mapping[str, Overlap], found_in: Mapping[str, Any]
) -> None:
    """Writes what was found as JSON, all copies by their names.

    Args:
      path: the file.
      overlaps: by split.
      found_in: what they depend on, e.g. the fingerprints of the records.
    """
    splits = {name: dataclasses.asdict(x) for name, x in overlaps.items()}
    entries = {"found_in": found_in, "splits": splits}
    with files.replacing(path) as file:
        # A name that is not UTF-8 comes as lone surrogates, which ASCII can say.
        file.write(json.dumps(entries, indent=2).encode("ascii"))


def read_overlaps(
    path: pathlib.Path, found_in: Mapping[str, Any]
) -> dict[str, Overlap] | None:
    """Reads what was written, None if it is not there or was found in anything else."""
    try:
        entries = json.loads(path.read_text("ascii"))
        if entries["found_in"] != found_in:
            return None
        return {name: Overlap(**x) for name, x in entries["splits"].items()}
    except (OSError, ValueError, KeyError, TypeError):
        return None  # What can be found again needs no repair.


def _find_named_copies(
    records: Mapping[str, Records],
    readers: Mapping[str, ImageReader],
    progress: Progress,
) -> dict[str, list[tuple[str, str, float]]]:
    """Returns the `copies` of each split but training."""
    looks = {
        name: create_looks(
            readers[name],
            len(split),
            lambda batches, name=name: progress(batches, f"{name}, copies"),
        )
        for name, split in records.items()
    }
    train, describe = looks.pop("train"), records["train"].describe
    return {
        name: [
            (records[name].describe(own), describe(other), distance)
            for own, other, distance in find_copies(
                train, x, readers["train"], readers[name]
            )
        ]
        for name, x in looks.items()
    }


def _shrunk(images: np.ndarray) -> np.ndarray:
    return pixels(images, min(images.shape[1], _MAX_SIDE))


def _find_nearest(
    train: np.ndarray, other: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns which rows of `other` have one of `train` near, and which is nearest."""
    rows = np.flatnonzero(np.isfinite(train[:, 0]))
    empty = np.zeros(0, np.int64)
    if not len(rows):
        return empty, empty
    train = train[rows]
    norms = np.einsum("md,md->m", train, train)
    size = max(1, _BLOCK_VALUES // len(train))
    own, nearest = [empty], [empty]
    for start in range(0, len(other), size):
        block = other[start : start + size]
        closest = np.argmin(norms - 2.0 * block @ train.T, axis=1)
        gaps = np.mean(np.square(block - train[closest]), axis=1)
        # A row of NaN is near to none.
        near = np.flatnonzero(np.sqrt(gaps) <= MAX_LOOK_DISTANCE)
        own.append(near + start)
        nearest.append(rows[closest[near]])
    return np.concatenate(own), np.concatenate(nearest)


def _names_by_key(records: Records, labels: np.ndarray) -> dict[str, list[str]]:
    """Returns the names of some classes by what counts of them."""
    found: dict[str, list[str]] = {}
    for label in labels.tolist():
        name = records.label_names[-1][label]
        key = re.sub(r"[\s_-]+", " ", name.rsplit("/", 1)[-1]).strip().casefold()
        found.setdefault(key, []).append(name)
    return found


def _first(names: Sequence[str]) -> str:
    return "e.g. " + ", ".join(names[:_NUM_NAMED])
