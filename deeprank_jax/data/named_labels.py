"""Labels of records by the name of their level or column."""

import dataclasses

import numpy as np

from deeprank_jax.data.records import Records
from deeprank_jax.errors import DataError
from deeprank_jax.registry import did_you_mean


@dataclasses.dataclass(frozen=True, kw_only=True)
class NamedLabels:
    """A label of each record.

    Attributes:
      values: `[N]` int32, numbers of the labels, from 0; the same in every split.
      names: Names of the labels by number.
    """

    values: np.ndarray
    names: tuple[str, ...]


def find_labels(records: Records, name: str, option: str) -> NamedLabels:
    """Returns the labels of a level or a column.

    Args:
      records: Records of a split.
      name: Name of a level or of a column.
      option: Option of the config that gives the name, for messages.

    Raises:
      DataError: The records have no label of the name, or one record lacks it.
    """
    if name in records.level_names:
        level = records.level_names.index(name)
        return NamedLabels(
            values=records.labels[:, level], names=records.label_names[level]
        )
    if name not in records.columns:
        names = (*records.level_names, *records.columns)
        raise DataError(
            f"{option} names {name!r}{did_you_mean(name, iter(names))}, but "
            f"{records.name} has the labels {', '.join(names)}; choose among them, or "
            "add it to config.data.source.columns."
        )
    values = records.columns[name]
    missing = np.flatnonzero(values < 0)
    if len(missing):
        raise DataError(
            f"{records.name}: {len(missing):,} records have no {name}, e.g. "
            f"{records.describe(int(missing[0]))!r}; fill it in, or take {name} out of "
            f"{option}."
        )
    num_labels = int(values.max(initial=-1)) + 1
    names = records.column_names.get(name, tuple(map(str, range(num_labels))))
    return NamedLabels(values=values, names=names)
