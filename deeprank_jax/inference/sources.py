"""Image collections for inference: a folder, a list of files or a TFDS split.

An image is identified by its path, an image of a TFDS dataset by its description there;
a file that is named twice, or by a link, counts once. Relative paths in a list file
start at the folder of that file. The label of an image is its parent folder below the
source folder, with those above where several have that name, or a column of the list or
dataset.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import os
import pathlib

from absl import logging
import ml_collections
import numpy as np

from deeprank_jax import errors, files, logs
from deeprank_jax.data import SOURCES, decode
from deeprank_jax.data import labels as labels_lib
from deeprank_jax.data.real_paths import RealPaths
from deeprank_jax.data.records import Records
from deeprank_jax.data.sources import folder, manifest, texts, tfds

# A folder, a list file, "tfds:NAME/SPLIT", paths or records.
ImageSource = str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | Records

PREFIX = "tfds:"
_FORMS = (
    "a folder, a .txt file with a path on each line, a .csv or .parquet file with the "
    'column "path" (and "label"), or tfds:NAME/SPLIT'
)


def open_source(
    source: ImageSource,
    *,
    data_dir: str = "data",
    like: ml_collections.ConfigDict | None = None,
    label_feature: str = "",
) -> Records:
    """Lists the images of a source.

    Args:
      source: A folder; a `.txt`, `.csv` or `.parquet` file; `"tfds:NAME/SPLIT"`; a
        sequence of paths; or records, which are returned.
      data_dir: Folder of TFDS datasets.
      like: `config.data` of a run, used to read the same dataset in the same way.
      label_feature: Feature with the labels of another dataset, or column of a list.

    Returns:
      The images in order, with one level of labels, `""` for images without one.

    Raises:
      DataError: There is no such source, or it has no image.
    """
    if isinstance(source, Records):
        return source
    if not isinstance(source, (str, os.PathLike)):
        paths = _as_paths(source)
        return _create_records("images", *_distinct("images", paths, [""] * len(paths)))
    text = os.fspath(source)
    if text.startswith(PREFIX):
        return _open_dataset(text.removeprefix(PREFIX), data_dir, like, label_feature)
    path = pathlib.Path(text).expanduser()
    if label_feature and (path.is_dir() or path.suffix == ".txt"):
        raise errors.DataError(
            f"{files.printable(text)}: --label_feature={label_feature} is for a .csv "
            "or .parquet list or a TFDS dataset; the labels of a folder are its "
            "folders, and a .txt list has none."
        )
    if path.is_dir():
        relative = folder.list_images(path)
        paths = [os.path.join(path, *parts) for parts in relative]
        labels = labels_lib.name_leaves([_normalize(parts[:-1]) for parts in relative])
    elif path.is_file():
        paths, labels = _read_list(path, label_feature)
    else:
        raise errors.DataError(
            f"{files.printable(text)}: there is no such file or folder; give {_FORMS}."
        )
    if not paths:
        raise errors.DataError(
            f"{files.printable(text)}: holds no image; give a folder or list with "
            "images."
        )
    labels_lib.warn_of_case(files.printable(text), sorted({*labels}))
    return _create_records(files.printable(text), *_distinct(text, paths, labels))


def absolute_source(source: ImageSource) -> ImageSource:
    """Returns a source with absolute paths, valid in every working directory.

    Args:
      source: Source as for `open_source`.
    """
    if isinstance(source, Records):
        return source
    if not isinstance(source, (str, os.PathLike)):
        return [os.path.abspath(path) for path in _as_paths(source)]
    text = os.fspath(source)
    is_dataset = text.startswith(PREFIX)
    return text if is_dataset else os.path.abspath(os.path.expanduser(text))


def _as_paths(source: Iterable[str | os.PathLike[str]]) -> list[str]:
    paths = list(source)
    for index, path in enumerate(paths):
        if not isinstance(path, (str, os.PathLike)):
            raise errors.DataError(
                f"images[{index}] is a {type(path).__name__}; give a path, or {_FORMS}."
            )
    if not paths:
        raise errors.DataError("The list of images is empty; give at least one path.")
    return [str(os.path.expanduser(path)) for path in paths]


def _read_list(path: pathlib.Path, label_column: str) -> tuple[list[str], list[str]]:
    if path.suffix == ".txt":
        text = texts.read_list(path, any_bytes=True)
        names = [line.strip() for line in text.splitlines() if line.strip()]
        texts.check_names(path, names)
        labels = [""] * len(names)
    else:
        table = manifest.read_table(path)
        if "path" not in table:
            raise errors.DataError(
                f"{files.printable(path)}: has no column 'path' (its columns are "
                f"{', '.join(table)}); rename the column with the paths to 'path'."
            )
        if label_column and label_column not in table:
            raise errors.DataError(
                f"{files.printable(path)}: has no column {label_column!r}; give "
                f"--label_feature one of its columns: {', '.join(table)}."
            )
        names = table["path"]
        manifest.check_values(path, "path", names)
        labels = _read_labels(table, label_column)
    # As in a manifest, a relative path starts at the folder of the list.
    return [os.path.join(path.parent, name) for name in names], labels


def _read_labels(table: Mapping[str, Sequence[str]], label_column: str) -> list[str]:
    """Returns the label of each row, of a training manifest by its levels."""
    levels = [f"level_{i + 1}" for i in range(len(table))]
    levels = [name for name in levels if name in table]
    if label_column or "label" in table or not levels:
        labels = table.get(label_column or "label", [""] * len(table["path"]))
        return list(_normalize(labels))
    rows = zip(*(_normalize(table[name]) for name in levels), strict=True)
    return labels_lib.name_leaves([row if row[-1] else () for row in rows])


def _normalize(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(files.printable(labels_lib.normalize_name(name)) for name in names)


def _distinct(
    source: str, paths: Sequence[str], labels: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Returns each file once, and warns of those named again, also by a link."""
    real_paths = RealPaths()
    images: dict[str, int] = {}
    num_relabelled = 0
    for index, path in enumerate(paths):
        first = images.setdefault(real_paths.of(path), index)
        num_relabelled += labels[first] != labels[index]
    if len(images) < len(paths):
        logging.warning(
            "%s: of %s, %s named a file again, by its path or a link%s; each file "
            "counts once, where it comes first.",
            files.printable(source),
            logs.counted(len(paths), "entry", "entries"),
            f"{len(paths) - len(images):,}",
            f" ({num_relabelled:,} with another label)" if num_relabelled else "",
        )
    indices = images.values()
    return [paths[i] for i in indices], [labels[i] for i in indices]


def _open_dataset(
    name: str,
    data_dir: str,
    like: ml_collections.ConfigDict | None,
    label_feature: str,
) -> Records:
    dataset, _, split = name.rpartition("/")
    if not dataset:
        raise errors.DataError(
            f"tfds:{name} names no split; give tfds:NAME/SPLIT, e.g. tfds:emoji/test."
        )
    kind, options = _dataset_source(dataset, like, label_feature)
    try:
        splits = SOURCES[kind](data_dir, **options)
    except errors.UserError:
        raise
    except ValueError as error:
        # The levels are the only option that a caller sets.
        option, _, reason = str(error).partition(" ")
        option = {"levels": "--label_feature"}.get(option, option)
        raise errors.DataError(f"tfds:{name}: {option} {reason}") from error
    if split not in splits:
        raise errors.DataError(
            f"tfds:{name}: {dataset} has no split {split!r}; choose one of "
            f"{', '.join(splits)}."
        )
    records = splits[split]
    labels = [records.label_name(i) for i in range(len(records))]
    listed = _create_records(f"tfds:{name}", [], labels)
    return dataclasses.replace(
        listed, read=records.read, describe=records.describe, path=None
    )


def _dataset_source(
    dataset: str, like: ml_collections.ConfigDict | None, label_feature: str
) -> tuple[str, dict[str, object]]:
    """Returns the kind of a TFDS dataset's source and its options."""
    section: dict[str, object] = {"name": dataset}
    if dataset not in tfds.OWN_DATASETS:
        section = {"name": "tfds", "dataset": dataset}
    if label_feature:
        section |= {"levels": (label_feature,), "name_feature": ""}
    elif like is not None and section.items() <= like.source.to_dict().items():
        section = like.source.to_dict()
    return str(section.pop("name")), section


def _create_records(name: str, paths: Sequence[str], labels: Sequence[str]) -> Records:
    label_names, numbers = np.unique(labels, return_inverse=True)
    return Records(
        name=name,
        labels=numbers.reshape(-1, 1).astype(np.int32),
        level_names=("label",),
        label_names=(tuple(map(str, label_names)),),
        read=lambda index: files.read_bytes(paths[index], decode.MAX_BYTES),
        describe=lambda index: files.as_text(paths[index]),
        path=lambda index: paths[index],
    )
