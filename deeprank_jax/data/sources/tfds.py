"""How does a TFDS dataset become records?

Convention: images stay as they are stored, encoded; labels are read once, in order,
without decoding an image.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import difflib
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
import tqdm

from deeprank_jax import errors
from deeprank_jax.data import labels as labels_lib
from deeprank_jax.data import records as records_lib
from deeprank_jax.data import splits
from deeprank_jax.data.sources import emoji_builder

BUILDERS = {"emoji": emoji_builder.Emoji}
_FILE_FORMAT = "array_record"


def create_records(
    name: str,
    data_dir: str | None,
    *,
    levels: Sequence[str],
    columns: Sequence[str] = (),
    image_feature: str = "image",
    name_feature: str = "",
    split_by: str = "dataset",
) -> dict[str, records_lib.Records]:
    """Prepares a TFDS dataset where that is still to do, and splits it.

    Args:
      name: as TFDS knows it, or a key of `BUILDERS`.
      data_dir: where TFDS keeps its datasets; None or empty for its default.
      levels: the features that label a record, coarse to fine; empty for the only
        `ClassLabel` that the dataset has.
      columns: further features that a relevance may compare, each a label by itself.
      image_feature: the feature that holds the image.
      name_feature: the feature that names the finest labels to a person; empty where
        the labels do so themselves.
      split_by: `"dataset"` for the dataset's own splits, `"class_hash"` or
        `"first_half"` to pool them and split by class.

    Returns:
      The records of each split.

    Raises:
      DataError: the dataset is unknown or cannot be prepared, or it lacks a feature
        or a split.
    """
    if split_by not in ("dataset", "class_hash", "first_half"):
        raise errors.DataError(
            f"config.data.split_by={split_by!r} is unknown; take "
            '"dataset", "class_hash" or "first_half".'
        )
    builder = prepare(name, data_dir)
    features = builder.info.features
    levels = levels or _only_class_label(name, features)
    named = (*levels, *columns, *([name_feature] if name_feature else []))
    for feature in (image_feature, *named):
        if feature not in features:
            raise errors.DataError(
                f"{name}: has no feature {feature!r} (it has {', '.join(features)}); "
                "set config.data.levels, config.data.columns and "
                "config.data.image_feature."
            )
    _check_columns(name, {k: features[k] for k in columns}, levels)
    # A mocked builder knows no splits, and takes any.
    names = list(builder.info.splits) or ["train", "test"]
    sources = {split: builder.as_data_source(split=split) for split in names}
    values = _read_labels(name, sources, {k: features[k] for k in named})
    sources, values = _without_unlabelled(sources, values, levels[-1])
    names = list(sources)
    pool, class_names = _create_pool(
        name, sources, features, levels, image_feature, values
    )
    further = {k: labels_lib.encode_labels([np.array(values[k])]) for k in columns}
    pool = dataclasses.replace(
        pool, columns={k: labels[:, 0] for k, (labels, _) in further.items()}
    )
    if name_feature:
        pool = _rename_classes(pool, values[name_feature])
    if split_by == "class_hash":
        return splits.split_by_class_hash(pool, class_names)
    if split_by == "first_half":
        return splits.split_first_half(pool, class_names)
    given = np.repeat(names, [len(sources[split]) for split in names])
    return splits.split_as_given(pool, class_names, given)


def prepare(name: str, data_dir: str | None) -> Any:
    """Returns the builder of a dataset, prepared.

    Args:
      name: as TFDS knows it, or a key of `BUILDERS`.
      data_dir: where TFDS keeps its datasets; None or empty for its default.

    Raises:
      DataError: the dataset is unknown, or cannot be prepared here.
    """
    keywords = {"data_dir": data_dir or None, "file_format": _FILE_FORMAT}
    try:
        builder = BUILDERS.get(name, lambda **k: tfds.builder(name, **k))(**keywords)
        builder.download_and_prepare()
    except errors.DataError:
        raise
    except tfds.core.DatasetNotFoundError as error:
        raise errors.DataError(_unknown(name)) from error
    except ImportError as error:
        raise errors.DataError(
            f"{name}: TFDS needs the package {error.name} to prepare it; run "
            f"`pip install {error.name}`, once, for this step only."
        ) from error
    # Each dataset's download fails in its own way.
    except Exception as error:
        reason = str(error).strip().splitlines() or [""]
        raise errors.DataError(
            f"{name}: cannot be prepared in {data_dir or 'the default folder of TFDS'} "
            f"({type(error).__name__}: {reason[0][:200]}); check the network, or copy "
            "the prepared folder from a machine that has it."
        ) from error
    return builder


def _only_class_label(name: str, features: Mapping[str, Any]) -> tuple[str, ...]:
    found = [k for k, f in features.items() if isinstance(f, tfds.features.ClassLabel)]
    if len(found) == 1:
        return (found[0],)
    raise errors.DataError(
        f"{name}: which features label an image? It has {len(found)} class labels "
        f"among its features {', '.join(sorted(features))}; set config.data.levels to "
        "some of them, coarse to fine."
    )


def _check_columns(
    name: str, columns: Mapping[str, Any], levels: Sequence[str]
) -> None:
    for key, feature in columns.items():
        if key in levels:
            raise errors.DataError(
                f"{name}: config.data.columns names the level {key!r}; a relevance can "
                "compare it as it is, so take it out."
            )
        if feature.shape or np.issubdtype(feature.np_dtype, np.floating):
            raise errors.DataError(
                f"{name}: config.data.columns names {key!r}, which is {feature}; a "
                "label is a whole number or a string."
            )


def _unknown(name: str) -> str:
    known = ["folder", "manifest", *BUILDERS]
    known += tfds.list_builders(with_community_datasets=False)
    close = difflib.get_close_matches(name, known, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "see tfds.list_builders."
    return f"config.data.name={name!r} is no dataset that TFDS knows; {hint}"


def _read_labels(
    name: str, sources: Mapping[str, Any], features: Mapping[str, Any]
) -> dict[str, list[Any]]:
    """Returns every record's values of the features, all splits in turn."""
    subset = tfds.features.FeaturesDict(features)
    values: dict[str, list[Any]] = {feature: [] for feature in features}
    total = sum(len(source) for source in sources.values())
    with tqdm.tqdm(total=total, desc=f"{name}: labels", unit=" records") as progress:
        for source in sources.values():
            for index in range(len(source)):
                example = _parse(source.data_source[index], subset)
                for feature, column in values.items():
                    column.append(_to_plain(example[feature]))
                progress.update()
    return values


def _without_unlabelled(
    sources: Mapping[str, Any], values: Mapping[str, list[Any]], level: str
) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Returns the splits that are labelled: -1 is TFDS's word for no label.

    The test splits of competitions have no other, as ImageNet's.
    """
    ends = np.cumsum([len(source) for source in sources.values()])
    parts = dict(zip(sources, zip([0, *ends[:-1]], ends, strict=True), strict=True))
    labelled = [
        split
        for split, (start, end) in parts.items()
        if any(value != -1 for value in values[level][start:end])
    ]
    return {split: sources[split] for split in labelled}, {
        name: [x for s in labelled for x in column[parts[s][0] : parts[s][1]]]
        for name, column in values.items()
    }


def _parse(stored: Any, features: Any, decoders: Any = None) -> Mapping[str, Any]:
    # A mocked source stores no bytes but examples.
    if isinstance(stored, Mapping):
        return stored
    return features.deserialize_example_np(stored, decoders=decoders)


def _to_plain(value: Any) -> int | str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return value if isinstance(value, str) else int(value)


def _create_pool(
    name: str,
    sources: Mapping[str, Any],
    features: Mapping[str, Any],
    levels: Sequence[str],
    image_feature: str,
    values: Mapping[str, list[Any]],
) -> tuple[records_lib.Records, tuple[str, ...]]:
    """Returns the records of all splits in turn, and the names that splits hash."""
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
        stored = sources[split].data_source[position]
        return _parse(stored, only_image, decoders)[image_feature]

    def describe(index: int) -> str:
        split, position = locate(index)
        return f"{name}/{split}[{position}]"

    label_names = labels_lib.name_labels(names, firsts)
    pool = records_lib.Records(
        name=name,
        labels=labels,
        level_names=tuple(levels),
        label_names=label_names,
        read=read,
        describe=describe,
    )
    return pool, label_names[-1]


def _rename_classes(
    pool: records_lib.Records, names: Sequence[int | str]
) -> records_lib.Records:
    """Returns the records with each finest label named as its first record is."""
    _, first = np.unique(pool.labels[:, -1], return_index=True)
    classes = tuple(str(names[index]) for index in first)
    return dataclasses.replace(pool, label_names=(*pool.label_names[:-1], classes))


def _to_names(feature: Any, column: np.ndarray) -> np.ndarray:
    """Returns `[N]` str: the names of class labels, else the values themselves."""
    if isinstance(feature, tfds.features.ClassLabel):
        return np.array(feature.names)[column]
    return column.astype(str)
