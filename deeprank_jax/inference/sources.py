"""Which images does a command work on? A folder, a list of files, a TFDS split.

Convention: an image is known by its path, one of a dataset by its description there.
Relative paths of a list begin in the list's folder. A label is the folder an image lies
in, below the folder that was given, or what the list or the dataset says.
"""

import dataclasses
import os
import pathlib

import ml_collections
import numpy as np

from deeprank_jax import errors, files
from deeprank_jax.data import SOURCES, source_section
from deeprank_jax.data.records import Records
from deeprank_jax.data.sources import folder, manifest

PREFIX = "tfds:"
_FORMS = (
    "a folder, a .txt file with a path on each line, a .csv or .parquet file with the "
    'column "path" (and "label"), or tfds:NAME/SPLIT'
)


def open_source(
    source: str,
    *,
    data_dir: str = "data",
    like: ml_collections.ConfigDict | None = None,
    label_feature: str = "",
) -> Records:
    """Lists the images that a command was given.

    Args:
      source: a folder; a `.txt`, `.csv` or `.parquet` file; or `tfds:NAME/SPLIT`.
      data_dir: where TFDS keeps its datasets.
      like: the `config.data` of a run, which says how its own dataset is read.
      label_feature: the feature that labels another dataset.

    Returns:
      The images in order, with one level of labels; without labels it is `""` for all.

    Raises:
      DataError: there is no such source, or it holds no image.
    """
    if source.startswith(PREFIX):
        return _open_dataset(source.removeprefix(PREFIX), data_dir, like, label_feature)
    path = pathlib.Path(source).expanduser()
    if path.is_dir():
        found = folder.list_images(path)
        names = [os.path.join(path, *parts) for parts in found]
        labels = [parts[-2] if len(parts) > 1 else "" for parts in found]
    elif path.is_file():
        names, labels = _read_list(path)
    else:
        raise errors.DataError(
            f"{files.printable(source)}: there is no such file or folder; give "
            f"{_FORMS}."
        )
    if not names:
        raise errors.DataError(f"{files.printable(source)}: holds no image.")
    return _create_records(files.printable(source), names, labels)


def _read_list(path: pathlib.Path) -> tuple[list[str], list[str]]:
    if path.suffix == ".txt":
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
        names = [line.strip() for line in text.splitlines() if line.strip()]
        labels = [""] * len(names)
    else:
        table = manifest.read_table(path)
        if "path" not in table:
            raise errors.DataError(
                f"{files.printable(path)}: has no column 'path' (its columns are "
                f"{', '.join(table)}); name the one with the images so."
            )
        names = table["path"]
        labels = table.get("label", [""] * len(names))
    # As in a manifest, a relative path begins where the list lies.
    return [os.path.join(path.parent, name) for name in names], labels


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
        # Of the options, a command sets only the levels.
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
    found = _create_records(f"tfds:{name}", [], labels)
    return dataclasses.replace(found, read=records.read, describe=records.describe)


def _dataset_source(
    dataset: str, like: ml_collections.ConfigDict | None, label_feature: str
) -> tuple[str, dict[str, object]]:
    """Returns the source of a TFDS dataset and its options, those of `like` if it is."""
    section: dict[str, object] = {"name": "emoji"}
    if dataset != "emoji":
        section = {"name": "tfds", "dataset": dataset}
    if label_feature:
        section |= {"levels": (label_feature,), "name_feature": ""}
    elif like is not None and section.items() <= source_section(like).items():
        section = source_section(like)
    return str(section.pop("name")), section


def _create_records(name: str, paths: list[str], labels: list[str]) -> Records:
    found, numbers = np.unique(labels, return_inverse=True)
    return Records(
        name=name,
        labels=numbers.reshape(-1, 1).astype(np.int32),
        level_names=("label",),
        label_names=(tuple(map(str, found)),),
        read=lambda index: pathlib.Path(paths[index]).read_bytes(),
        describe=lambda index: files.printable(paths[index]),
    )
