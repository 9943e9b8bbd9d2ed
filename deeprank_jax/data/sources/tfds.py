"""Source "tfds", any TFDS dataset, and those that the project has builders of.

Convention: TFDS, which is slow to import, is imported only when one of them is used.
"""

from collections.abc import Sequence

from deeprank_jax.data import splits
from deeprank_jax.data.records import Records

# Datasets with a builder of the project; each is a source of that name, too.
OWN_DATASETS = ("digits", "emoji", "photo_views")
_SPLIT_RULES = ("dataset", "class_hash", "first_half")


def create_records(
    directory: str | None = None,
    *,
    dataset: str,
    levels: Sequence[str] = (),
    columns: Sequence[str] = (),
    image_feature: str = "image",
    name_feature: str = "",
    split_by: str = "dataset",
) -> dict[str, Records]:
    """Prepares a TFDS dataset if necessary, and splits it.

    Args:
      directory: Folder of TFDS datasets; None or empty for the default of TFDS.
      dataset: Name in TFDS, or one of `OWN_DATASETS`.
      levels: Label features, from coarse to fine; empty for the only `ClassLabel` of
        the dataset.
      columns: Further features that a relevance may compare.
      image_feature: Feature that holds the image.
      name_feature: Feature with readable names of the finest labels; empty if the
        labels are readable themselves.
      split_by: Rule: `"dataset"` uses the dataset's own splits, `"class_hash"` and
        `"first_half"` pool them and split by class.

    Returns:
      The records of each split.

    Raises:
      DataError: The dataset is unknown, cannot be prepared or is too small.
      ValueError: The dataset lacks a feature or a split that an option names.
    """
    if split_by not in _SPLIT_RULES:
        raise ValueError(
            f"split_by must be one of {', '.join(_SPLIT_RULES)}, got {split_by!r}."
        )
    from deeprank_jax.data.sources import tfds_dataset

    pool, class_names, stored_splits = tfds_dataset.read_pool(
        tfds_dataset.prepare(dataset, directory),
        dataset,
        levels=tuple(levels),
        columns=tuple(columns),
        image_feature=image_feature,
        name_feature=name_feature,
    )
    if split_by == "class_hash":
        return splits.split_by_class_hash(pool, class_names)
    if split_by == "first_half":
        return splits.split_first_half(pool, class_names)
    return splits.split_as_stored(pool, class_names, stored_splits)


def create_digits_records(
    directory: str | None = None,
    *,
    levels: Sequence[str] = ("parity", "digit"),
    columns: Sequence[str] = ("size", "original"),
    name_feature: str = "",
    split_by: str = "dataset",
) -> dict[str, Records]:
    """Prepares digits in three sizes from an installed package if necessary.

    Args:
      directory: Folder of TFDS datasets; None or empty for the default of TFDS.
      levels: Label features, from coarse to fine.
      columns: Further features: the size, and the number of the handwritten digit that
        three images show.
      name_feature: Feature with readable names of the finest labels.
      split_by: Split rule, see `create_records`.

    Returns:
      The records of each split.

    Raises:
      MissingExtraError: The package with the digits is not installed.
      ValueError: The dataset lacks a feature that an option names.
    """
    return create_records(
        directory,
        dataset="digits",
        levels=levels,
        columns=columns,
        name_feature=name_feature,
        split_by=split_by,
    )


def create_emoji_records(
    directory: str | None = None,
    *,
    levels: Sequence[str] = ("category", "subcategory", "emoji"),
    columns: Sequence[str] = (),
    name_feature: str = "name",
    split_by: str = "dataset",
) -> dict[str, Records]:
    """Prepares the emoji dataset from installed packages if necessary.

    Args:
      directory: Folder of TFDS datasets; None or empty for the default of TFDS.
      levels: Label features, from coarse to fine.
      columns: Further features that a relevance may compare, e.g. `("vendor",)`.
      name_feature: Feature with readable names of the finest labels.
      split_by: Split rule, see `create_records`.

    Returns:
      The records of each split.

    Raises:
      MissingExtraError: The packages with the images are not installed.
      ValueError: The dataset lacks a feature that an option names.
    """
    return create_records(
        directory,
        dataset="emoji",
        levels=levels,
        columns=columns,
        name_feature=name_feature,
        split_by=split_by,
    )


def create_photo_views_records(
    directory: str | None = None,
    *,
    levels: Sequence[str] = ("photograph", "region", "place"),
    columns: Sequence[str] = (),
    name_feature: str = "name",
    split_by: str = "dataset",
) -> dict[str, Records]:
    """Prepares the views of places in photographs from installed packages if necessary.

    Args:
      directory: Folder of TFDS datasets; None or empty for the default of TFDS.
      levels: Label features, from coarse to fine.
      columns: Further features that a relevance may compare.
      name_feature: Feature with readable names of the finest labels.
      split_by: Split rule, see `create_records`.

    Returns:
      The records of each split.

    Raises:
      MissingExtraError: The packages with the photographs are not installed.
      ValueError: The dataset lacks a feature that an option names.
    """
    return create_records(
        directory,
        dataset="photo_views",
        levels=levels,
        columns=columns,
        name_feature=name_feature,
        split_by=split_by,
    )
