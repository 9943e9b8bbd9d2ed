"""Records of image files with named levels, for folders and manifests."""

from collections.abc import Mapping, Sequence
import os
import pathlib

from absl import logging
import numpy as np

from deeprank_jax.data import labels as labels_lib
from deeprank_jax.data import splits
from deeprank_jax.data.decode import MAX_BYTES
from deeprank_jax.data.real_paths import RealPaths
from deeprank_jax.data.records import Records
from deeprank_jax.errors import DataError
from deeprank_jax.files import as_text, printable, read_bytes


def create_records(
    name: str,
    root: pathlib.Path,
    paths: Sequence[str],
    columns: Sequence[np.ndarray],
    further: Mapping[str, np.ndarray] | None = None,
    *,
    level_titles: tuple[str, ...],
    split_by: str,
    shares: splits.Shares,
) -> dict[str, Records]:
    """Splits image files by the hash of their class's path, or of their own.

    Args:
      name: Name of the records in messages.
      root: Folder that relative paths start from.
      paths: Paths of the `N` files, as the file system spells them.
      columns: Labels `[N]` str for each level, from coarse to fine.
      further: Other labels by name, each `[N]` str; empty where a file has none.
      level_titles: Titles of the levels for people, from coarse to fine.
      split_by: `"class"`, or `"image"` for classes that all splits share.
      shares: Shares of validation and test.

    Returns:
      The records of each split.

    Raises:
      DataError: There are too few files to split, or no two of a class.
      ValueError: There is no such `split_by`.
    """
    rows = _distinct_rows(name, root, paths, columns)
    paths = [paths[row] for row in rows]
    columns = [_normalize(column[rows]) for column in columns]
    further = {key: values[rows] for key, values in (further or {}).items()}
    labels, firsts = labels_lib.encode_labels(columns)
    columns = [np.array([as_text(name) for name in column]) for column in columns]
    codes = {key: _encode_column(values) for key, values in further.items()}
    pool = Records(
        name=name,
        labels=labels,
        level_names=tuple(f"level_{level + 1}" for level in range(len(columns))),
        level_titles=level_titles,
        label_names=labels_lib.name_labels(columns, firsts),
        read=lambda index: read_bytes(root / paths[index], MAX_BYTES),
        describe=lambda index: as_text(paths[index]),
        path=lambda index: os.path.join(root, paths[index]),
        columns={key: values for key, (values, _) in codes.items()},
        column_names={key: names for key, (_, names) in codes.items()},
    )
    class_names = labels_lib.join_paths(columns, firsts[-1])
    _check_some_are_similar(root, labels)
    _warn_of_single_images(pool, class_names)
    labels_lib.warn_of_case(printable(root), class_names)
    if split_by == "image":
        return splits.split_by_record_hash(pool, shares)
    if split_by != "class":
        raise ValueError(f'split_by must be "class" or "image", got {split_by!r}.')
    return splits.split_by_class_hash(pool, class_names, shares)


def _check_some_are_similar(root: pathlib.Path, labels: np.ndarray) -> None:
    if np.bincount(labels[:, 0]).max() == 1:
        raise DataError(
            f"{printable(root)}: every class has a single image, so nothing tells "
            "which images are similar; put those into one class, search without "
            "training, by --model=efficientnet_lite0, or train without classes, by "
            "--config=unlabelled."
        )


def _distinct_rows(
    name: str, root: pathlib.Path, paths: Sequence[str], columns: Sequence[np.ndarray]
) -> np.ndarray:
    """Returns the rows of distinct files and classes, and warns of the others."""
    real_paths = RealPaths()
    first_of: dict[str, int] = {}
    num_repeated, ambiguous, rows = 0, [], []
    for row, path in enumerate(paths):
        first = first_of.setdefault(real_paths.of(os.path.join(root, path)), row)
        if first == row:
            rows.append(row)
        elif all(column[first] == column[row] for column in columns):
            num_repeated += 1
        else:
            ambiguous.append(path)
            rows.append(row)
    if num_repeated:
        logging.warning(
            "%s: %s of %s entries repeat an image in its class, by its path or a link; "
            "each image is used once.",
            name,
            f"{num_repeated:,}",
            f"{len(paths):,}",
        )
    if ambiguous:
        logging.warning(
            "%s: %s images are in a second class, e.g. %s; such an image is a negative "
            "of itself. Leave it in one class.",
            name,
            f"{len(ambiguous):,}",
            printable(ambiguous[0]),
        )
    return np.array(rows, np.int64)


def _normalize(column: np.ndarray) -> np.ndarray:
    return np.array([labels_lib.normalize_name(name) for name in column.tolist()])


def _encode_column(values: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns `[N]` int32, -1 for an empty value, and the names of the numbers."""
    labels, (firsts,) = labels_lib.encode_labels([values])
    names = tuple(as_text(values[first]) for first in firsts)
    return np.where(values == "", np.int32(-1), labels[:, 0]), names


def _warn_of_single_images(pool: Records, class_names: Sequence[str]) -> None:
    single = np.flatnonzero(np.bincount(pool.labels[:, -1]) == 1)
    if len(single):
        logging.warning(
            "%s: %s of %s classes have a single image, e.g. %s; such an image has no "
            "positive of its own class.",
            pool.name,
            f"{len(single):,}",
            f"{len(class_names):,}",
            class_names[single[0]],
        )
