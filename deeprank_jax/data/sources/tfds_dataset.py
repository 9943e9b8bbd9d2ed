"""Records of a TFDS dataset.

Convention: images stay encoded, as they are stored; labels are read once, in order,
without decoding an image.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import difflib
import pathlib
from typing import Protocol, cast

import numpy as np

from deeprank_jax import errors, files
from deeprank_jax.data import labels as labels_lib
from deeprank_jax.data.records import Records
from deeprank_jax.data.sources import digits_builder, emoji_builder, photo_views_builder
from deeprank_jax.errors import needs_extra
from deeprank_jax.files import locks
from deeprank_jax.progress import Bar

with needs_extra("train"):
    import tensorflow_datasets as tfds

_BUILDERS = {
    "digits": digits_builder.Digits,
    "emoji": emoji_builder.Emoji,
    "photo_views": photo_views_builder.PhotoViews,
}
_FILE_FORMAT = "array_record"
# TFDS stores the unlabelled test splits of competitions with this label.
_UNLABELLED = -1

Feature = tfds.features.FeatureConnector
Value = bytes | str | int | np.ndarray


class DataSource(Protocol):
    """Stored examples of one split, read by index."""

    data_source: Sequence[bytes | Mapping[str, Value]]

    def __len__(self) -> int:
        """Returns the number of examples."""
        ...


def prepare(dataset: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    """Returns the builder of a dataset, prepared.

    Args:
      dataset: Name in TFDS, or of one of our builders.
      data_dir: Folder of TFDS datasets; None or empty for the default of TFDS.

    Raises:
      DataError: The dataset is unknown, or cannot be prepared here.
    """
    try:
        builder = _create_builder(dataset, data_dir)
        path = pathlib.Path(builder.data_path)
        # A prepared one may be in a folder that allows no writing.
        if builder.is_prepared() or "://" in str(builder.data_path):
            builder.download_and_prepare()
            return builder
        files.create_folder(path.parent)
        with locks.beside(path, wait=True):
            # Reads what another process may have prepared meanwhile.
            builder = _create_builder(dataset, data_dir)
            builder.download_and_prepare()
    except errors.UserError:
        raise
    except tfds.core.DatasetNotFoundError as error:
        raise errors.DataError(_unknown(dataset)) from error
    except ImportError as error:
        raise errors.DataError(
            f"{dataset}: TFDS needs the package {error.name} to prepare it; run "
            f"`pip install {error.name}`, once, for this step only."
        ) from error
    # Each dataset's download fails in its own way.
    except Exception as error:
        reason = str(error).strip().splitlines() or [""]
        raise errors.DataError(
            f"{dataset}: cannot be prepared in "
            f"{data_dir or 'the default folder of TFDS'} "
            f"({type(error).__name__}: {reason[0][:200]}); check the network, or copy "
            "the prepared folder from a machine that has it."
        ) from error
    return builder


def _create_builder(dataset: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    """Returns the builder of a dataset."""
    keywords = {"data_dir": data_dir or None, "file_format": _FILE_FORMAT}
    if dataset in _BUILDERS:
        return _BUILDERS[dataset](**keywords)
    return tfds.builder(dataset, **keywords)


def read_pool(
    builder: tfds.core.DatasetBuilder,
    dataset: str,
    *,
    levels: tuple[str, ...],
    columns: tuple[str, ...],
    image_feature: str,
    name_feature: str,
) -> tuple[Records, tuple[str, ...], np.ndarray]:
    """Reads the labels of all splits.

    Args:
      builder: Prepared builder.
      dataset: Name of the dataset.
      levels: Label features, from coarse to fine; empty for the only `ClassLabel`.
      columns: Further features that a relevance may compare.
      image_feature: Feature that holds the image.
      name_feature: Feature with readable names of the finest labels, or empty.

    Returns:
      The labelled records of all splits in turn, for each finest label the name that
      is hashed, and the split of each record in the dataset, `[N]` str.

    Raises:
      DataError: A file of the dataset is damaged or missing.
      ValueError: The dataset lacks a feature that an argument names.
    """
    features = builder.info.features
    levels = levels or _only_class_label(dataset, features)
    _check_features(dataset, features, levels, columns, image_feature, name_feature)
    sources = _open_splits(dataset, builder)
    label_features = (*levels, *columns, *([name_feature] if name_feature else []))
    values = _read_labels(dataset, sources, {k: features[k] for k in label_features})
    sources, values = _without_unlabelled(sources, values, levels[-1])
    pool, class_names = _create_pool(
        dataset, sources, features, levels, image_feature, values
    )
    codes, names = _encode_columns({k: np.array(values[k]) for k in columns})
    pool = dataclasses.replace(pool, columns=codes, column_names=names)
    if name_feature:
        pool = _rename_classes(pool, values[name_feature])
    sizes = [len(source) for source in sources.values()]
    return pool, class_names, np.repeat(list(sources), sizes)


@dataclasses.dataclass(frozen=True)
class _Split:
    """Stored examples of a split, whose files have checksums of their own.

    Attributes:
      dataset: Name of the dataset.
      folder: Folder of its files.
      source: Reader of TFDS.
    """

    dataset: str
    folder: str
    source: DataSource

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self.source)

    def read(self, index: int) -> bytes | Mapping[str, Value]:
        """Returns a stored example.

        Raises:
          DataError: Its file is damaged or missing.
        """
        try:
            return self.source.data_source[index]
        except Exception as error:
            raise _damaged(self.dataset, self.folder, error) from error


def _open_splits(dataset: str, builder: tfds.core.DatasetBuilder) -> dict[str, _Split]:
    """Returns all splits of a dataset by name.

    Raises:
      DataError: They cannot be opened.
    """
    # A mocked builder has no list of splits, and accepts any.
    names = list(builder.info.splits) or ["train", "test"]
    folder = str(builder.data_path)
    try:
        return {
            name: _Split(dataset, folder, builder.as_data_source(split=name))
            for name in names
        }
    except Exception as error:
        raise _damaged(dataset, folder, error) from error


def _damaged(dataset: str, folder: str, error: Exception) -> errors.DataError:
    """Returns the error about a damaged folder, as TFDS has one for each damage."""
    reason = " ".join(str(error).split())[:200]
    return errors.DataError(
        f"{dataset}: a file of {folder} is damaged or missing ({reason}); delete that "
        "folder, so that the dataset is prepared again."
    )


def _only_class_label(dataset: str, features: Mapping[str, Feature]) -> tuple[str, ...]:
    names = [k for k, f in features.items() if isinstance(f, tfds.features.ClassLabel)]
    if len(names) == 1:
        return (names[0],)
    raise ValueError(
        f"levels must name the features that label an image, from coarse to fine: "
        f"{dataset} has {len(names)} class labels among its features "
        f"{', '.join(sorted(features))}."
    )


def _check_features(
    dataset: str,
    features: Mapping[str, Feature],
    levels: Sequence[str],
    columns: Sequence[str],
    image_feature: str,
    name_feature: str,
) -> None:
    options = {
        "image_feature": (image_feature,),
        "levels": levels,
        "columns": columns,
        "name_feature": (name_feature,) if name_feature else (),
    }
    for option, names in options.items():
        for name in names:
            if name not in features:
                raise ValueError(
                    f"{option} must be among the features of {dataset} "
                    f"({', '.join(sorted(features))}), got {name!r}."
                )
    for name in columns:
        feature = features[name]
        if name in levels:
            raise ValueError(
                f"columns must not name the level {name!r}: a relevance can compare "
                "levels without it."
            )
        if feature.shape or _is_float(feature):
            raise ValueError(
                "columns must name features that are whole numbers or strings, but "
                f"{name!r} of {dataset} is {feature}."
            )


def _is_float(feature: Feature) -> bool:
    return np.issubdtype(cast("np.dtype", feature.np_dtype), np.floating)


def _unknown(dataset: str) -> str:
    names = tfds.list_builders(with_community_datasets=False)
    close = difflib.get_close_matches(dataset, [*_BUILDERS, *names], n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "see tfds.list_builders."
    return f"{dataset}: not a dataset of TFDS; {hint}"


def _read_labels(
    dataset: str, sources: Mapping[str, _Split], features: Mapping[str, Feature]
) -> dict[str, list[int | str]]:
    """Returns every record's values of the features, all splits in turn."""
    subset = tfds.features.FeaturesDict(features)
    values: dict[str, list[int | str]] = {feature: [] for feature in features}
    total = sum(len(source) for source in sources.values())
    with Bar(total=total, desc=f"{dataset}: labels", unit="record") as progress:
        for source in sources.values():
            for index in range(len(source)):
                example = _parse(source.read(index), subset)
                for feature, column in values.items():
                    column.append(_to_plain(example[feature]))
                progress.update()
    return values


def _without_unlabelled(
    sources: Mapping[str, _Split],
    values: Mapping[str, list[int | str]],
    level: str,
) -> tuple[dict[str, _Split], dict[str, list[int | str]]]:
    """Returns the labelled splits and their values."""
    ends = np.cumsum([len(source) for source in sources.values()])
    parts = dict(zip(sources, zip([0, *ends[:-1]], ends, strict=True), strict=True))
    labelled = [
        split
        for split, (start, end) in parts.items()
        if any(value != _UNLABELLED for value in values[level][start:end])
    ]
    return {split: sources[split] for split in labelled}, {
        name: [x for s in labelled for x in column[parts[s][0] : parts[s][1]]]
        for name, column in values.items()
    }


def _parse(
    stored: bytes | Mapping[str, Value],
    features: tfds.features.FeaturesDict,
    decoders: Mapping[str, tfds.decode.Decoder] | None = None,
) -> Mapping[str, Value]:
    # A mocked source stores decoded examples.
    if isinstance(stored, Mapping):
        return stored
    example = features.deserialize_example_np(stored, decoders=decoders)
    return cast("Mapping[str, Value]", example)


def _to_plain(value: Value) -> int | str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return value if isinstance(value, str) else int(value)


def _create_pool(
    dataset: str,
    sources: Mapping[str, _Split],
    features: Mapping[str, Feature],
    levels: Sequence[str],
    image_feature: str,
    values: Mapping[str, list[int | str]],
) -> tuple[Records, tuple[str, ...]]:
    """Returns the records of all splits in turn, and the class names to hash."""
    columns = [np.array(values[level]) for level in levels]
    labels, firsts = labels_lib.encode_labels(columns)
    names = [_to_names(features[k], c) for k, c in zip(levels, columns, strict=True)]
    split_names = list(sources)
    ends = np.cumsum([len(source) for source in sources.values()])

    def locate(index: int) -> tuple[str, int]:
        split = int(np.searchsorted(ends, index, side="right"))
        first = int(ends[split - 1]) if split else 0
        return split_names[split], index - first

    only_image = tfds.features.FeaturesDict({image_feature: features[image_feature]})
    decoders = {image_feature: tfds.decode.SkipDecoding()}

    def read(index: int) -> bytes | np.ndarray:
        split, position = locate(index)
        stored = sources[split].read(position)
        image = _parse(stored, only_image, decoders)[image_feature]
        return cast("bytes | np.ndarray", image)

    def describe(index: int) -> str:
        split, position = locate(index)
        return f"{dataset}/{split}[{position}]"

    label_names = labels_lib.name_labels(names, firsts)
    pool = Records(
        name=dataset,
        labels=labels,
        level_names=tuple(levels),
        label_names=label_names,
        read=read,
        describe=describe,
    )
    return pool, label_names[-1]


def _encode_columns(
    columns: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], dict[str, tuple[str, ...]]]:
    """Returns the numbers of the labels of columns `[N]`, and the labels' names."""
    codes, names = {}, {}
    for name, column in columns.items():
        labels, (firsts,) = labels_lib.encode_labels([column])
        codes[name] = labels[:, 0]
        names[name] = tuple(str(column[first]) for first in firsts)
    return codes, names


def _rename_classes(pool: Records, names: Sequence[int | str]) -> Records:
    """Returns the records with each finest label named as its first record."""
    _, first = np.unique(pool.labels[:, -1], return_index=True)
    classes = tuple(str(names[index]) for index in first)
    return dataclasses.replace(pool, label_names=(*pool.label_names[:-1], classes))


def _to_names(feature: Feature, column: np.ndarray) -> np.ndarray:
    """Returns `[N]` str: the names of class labels, or the values themselves."""
    if isinstance(feature, tfds.features.ClassLabel):
        return np.array(feature.names)[column]
    return column.astype(str)
