"""Leakage from training into validation and test: shared classes and copied images.

Convention: thumbnails are `[N, D]` float32 in [0, 1], small copies of the images; their
distance is the root of the mean squared difference of their values.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses
import json
import pathlib
import re

from absl import logging
import numpy as np

from deeprank_jax import checksums, files
from deeprank_jax.data.reader import ImageReader
from deeprank_jax.data.records import Records
from deeprank_jax.descriptors.pixels import pixels

# Largest distance of a copy, between thumbnails and between images shrunk to 64 pixels.
# Of photographs of 224 pixels and more, 99 % of copies with three quarters of the
# height and width and JPEG quality 60 are within both; a shift by 2 % of the width is
# not.
MAX_THUMBNAIL_DISTANCE, MAX_DISTANCE = 3.0 / 255.0, 7.0 / 255.0
_MAX_SIDE = 64
# Distances in memory at a time, 32 MiB, and images read at a time.
_BLOCK_VALUES, _BATCH = 2**23, 256
_NUM_EXAMPLES = 3

Batches = Iterable[dict[str, np.ndarray]]
# Wrapper of batches in a progress bar with a description.
Progress = Callable[[Batches, str], Batches]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Leakage:
    """Classes and images that a split shares with training.

    Attributes:
      num_images: Number of images of the split.
      num_classes: Number of its classes, at the finest level.
      seen_classes: Names of its classes that are classes of training too.
      namesakes: Names of other classes that resemble the name of a training class, each
        with that name.
      copies: Descriptions of each image with a copy in training and of the copy, and
        their distance; None if copies were not searched.
    """

    num_images: int
    num_classes: int
    seen_classes: Sequence[str]
    namesakes: Sequence[tuple[str, str]]
    copies: Sequence[tuple[str, str, float]] | None

    def describe(self) -> str:
        """Returns a phrase with the shared numbers and some examples."""
        parts = [f"{len(self.seen_classes):,} of {self.num_classes:,} classes"]
        if self.namesakes:
            names = [f"{name!r} like {other!r}" for name, other in self.namesakes]
            parts.append(f"{len(names):,} classes with similar names ({_first(names)})")
        if self.copies is None:
            parts.append("copies were not searched")
        else:
            parts.append(
                f"{len(self.copies):,} of {self.num_images:,} images have a copy"
                + self._describe_copies()
            )
        return ", ".join(parts)

    def _describe_copies(self) -> str:
        if not self.copies:
            return ""
        names = [f"{image!r} of {copy!r}" for image, copy, _ in self.copies]
        num_exact = sum(distance == 0 for *_, distance in self.copies)
        return f" ({num_exact:,} exact; {_first(names)})"


def find_leakage(
    records: Mapping[str, Records],
    readers: Mapping[str, ImageReader],
    *,
    max_images: int,
    progress: Progress = lambda batches, description: batches,
) -> dict[str, Leakage]:
    """Finds the classes and images that other splits share with training.

    Args:
      records: Records by split, `"train"` and others.
      readers: Image readers of the splits.
      max_images: Number of images of all splits above which copies are not searched.
      progress: Wrapper of a split's batches in a progress bar with a description.

    Returns:
      The leakage by split, for all but `"train"`.
    """
    copies = {}
    if sum(map(len, records.values())) <= max_images:
        copies = _find_named_copies(records, readers, progress)
    return {
        name: Leakage(
            num_images=len(records[name]),
            num_classes=len(np.unique(records[name].labels[:, -1])),
            seen_classes=seen_classes(records["train"], records[name]),
            namesakes=find_namesakes(records["train"], records[name]),
            copies=copies.get(name),
        )
        for name in records
        if name != "train"
    }


def warn_of_leakage(leakages: Mapping[str, Leakage]) -> None:
    """Warns of copies and of classes with similar names.

    Shared classes are no reason here: the split itself was logged with a warning.
    """
    for name, leakage in leakages.items():
        if leakage.namesakes or leakage.copies:
            logging.warning(
                "The %s split shares with training: %s; its metrics include images "
                "that are not new to the model.",
                name,
                leakage.describe(),
            )


def seen_classes(train: Records, other: Records) -> list[str]:
    """Returns the names of the finest labels that both splits have."""
    labels = np.intersect1d(train.labels[:, -1], other.labels[:, -1])
    return [other.label_names[-1][label] for label in labels]


def find_namesakes(train: Records, other: Records) -> list[tuple[str, str]]:
    """Finds different classes with similar names.

    Case, blanks, underscores and hyphens are ignored, and only the end of a path
    counts. If several classes of a split have the same end, it is ignored.

    Args:
      train: Records of training.
      other: Records of another split.

    Returns:
      The name in `other` and the name in training.
    """
    train_labels = np.unique(train.labels[:, -1])
    new_labels = np.setdiff1d(other.labels[:, -1], train_labels)
    train_names = _names_by_key(train, train_labels)
    return [
        (names[0], train_names[key][0])
        for key, names in _names_by_key(other, new_labels).items()
        if len(names) == 1 and len(train_names.get(key, ())) == 1
    ]


def create_thumbnails(
    reader: ImageReader, size: int, progress: Callable[[Batches], Batches] = iter
) -> np.ndarray:
    """Returns a thumbnail of each image of a split, `[size, D]`; NaN for bad images."""
    width = pixels(np.zeros((1, 1, 1, 3), np.uint8)).shape[1]
    thumbnails = np.full((size, width), np.nan, np.float32)
    for batch in progress(reader.batches(_BATCH)):
        mask = batch["mask"]
        thumbnails[batch["indices"][mask]] = pixels(batch["images"][mask])
    return thumbnails


def find_copies(
    train: np.ndarray,
    other: np.ndarray,
    train_reader: ImageReader,
    other_reader: ImageReader,
) -> list[tuple[int, int, float]]:
    """Finds the images of a split that have a copy in training.

    The training image with the nearest thumbnail is a copy if the thumbnails are within
    `MAX_THUMBNAIL_DISTANCE` and the images, shrunk to 64 pixels, within `MAX_DISTANCE`.
    Thumbnails alone would confuse fine patterns of the same mean colour.

    Args:
      train: `[M, D]` float32, thumbnails of training; rows of NaN are ignored.
      other: `[N, D]` float32, thumbnails of the split; rows of NaN are ignored.
      train_reader: Image reader of training.
      other_reader: Image reader of the split.

    Returns:
      The indices of the image and of its copy, and their distance; nearest first.
    """
    indices, nearest = _find_nearest(train, other)
    copies = []
    for start in range(0, len(indices), _BATCH):
        pairs = indices[start : start + _BATCH], nearest[start : start + _BATCH]
        a, b = (
            _shrink(reader.load(part)[0])
            for reader, part in zip((other_reader, train_reader), pairs, strict=True)
        )
        distances = np.sqrt(np.mean(np.square(a - b), axis=1))
        for i in np.flatnonzero(distances <= MAX_DISTANCE):
            copies.append((int(pairs[0][i]), int(pairs[1][i]), float(distances[i])))
    return sorted(copies, key=lambda copy: (copy[2], copy[0]))


def write_leakage(
    path: pathlib.Path, leakages: Mapping[str, Leakage], key: Mapping[str, object]
) -> None:
    """Writes leakage as JSON, with all copies.

    Args:
      path: Path of the file.
      leakages: Leakage by split.
      key: Inputs that the leakage depends on, e.g. fingerprints of the records.
    """
    splits = {name: dataclasses.asdict(x) for name, x in leakages.items()}
    entries = checksums.seal_json({"found_in": key, "splits": splits})
    with files.replacing(path) as file:
        # Names that are not UTF-8 contain lone surrogates, which ASCII can express.
        file.write(json.dumps(entries, indent=2).encode("ascii"))


def read_leakage(
    path: pathlib.Path, key: Mapping[str, object]
) -> dict[str, Leakage] | None:
    """Reads leakage; None if the file is missing, damaged or of another key.

    Args:
      path: Path of the file.
      key: Inputs that the leakage depends on, as written.
    """
    try:
        entries = checksums.unseal_json(files.read_json(path, files.MAX_TEXT))
        if entries["found_in"] != key:
            return None
        if len(entries) != 2:
            raise ValueError("it has unknown entries")
        return {name: Leakage(**x) for name, x in entries["splits"].items()}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        logging.warning("%s is damaged (%s): searched for again.", path, error)
        return None


def _find_named_copies(
    records: Mapping[str, Records],
    readers: Mapping[str, ImageReader],
    progress: Progress,
) -> dict[str, list[tuple[str, str, float]]]:
    """Returns the `copies` of each split except training."""
    thumbnails = {
        name: create_thumbnails(
            readers[name],
            len(split),
            lambda batches, name=name: progress(batches, f"{name}, copies"),
        )
        for name, split in records.items()
    }
    train, describe = thumbnails.pop("train"), records["train"].describe
    return {
        name: [
            (records[name].describe(index), describe(copy), distance)
            for index, copy, distance in find_copies(
                train, x, readers["train"], readers[name]
            )
        ]
        for name, x in thumbnails.items()
    }


def _shrink(images: np.ndarray) -> np.ndarray:
    return pixels(images, min(images.shape[1], _MAX_SIDE))


def _find_nearest(
    train: np.ndarray, other: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows of `other` near a row of `train`, and the nearest such row."""
    rows = np.flatnonzero(np.isfinite(train[:, 0]))
    empty = np.zeros(0, np.int64)
    if not len(rows):
        return empty, empty
    train = train[rows]
    norms = np.einsum("md,md->m", train, train)
    size = max(1, _BLOCK_VALUES // len(train))
    indices, nearest = [empty], [empty]
    for start in range(0, len(other), size):
        block = other[start : start + size]
        closest = np.argmin(norms - 2.0 * block @ train.T, axis=1)
        gaps = np.mean(np.square(block - train[closest]), axis=1)
        # A row of NaN is near no row.
        near = np.flatnonzero(np.sqrt(gaps) <= MAX_THUMBNAIL_DISTANCE)
        indices.append(near + start)
        nearest.append(rows[closest[near]])
    return np.concatenate(indices), np.concatenate(nearest)


def _names_by_key(records: Records, labels: np.ndarray) -> dict[str, list[str]]:
    """Returns the names of some classes by the part of them that is compared."""
    names: dict[str, list[str]] = {}
    for label in labels.tolist():
        name = records.label_names[-1][label]
        key = re.sub(r"[\s_-]+", " ", name.rsplit("/", 1)[-1]).strip().casefold()
        names.setdefault(key, []).append(name)
    return names


def _first(names: Sequence[str]) -> str:
    return "e.g. " + ", ".join(names[:_NUM_EXAMPLES])
