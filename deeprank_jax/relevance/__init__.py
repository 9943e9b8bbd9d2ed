"""Desired similarity of two records: one object from sampler to metric.

A relevance compares the attributes of records: labels, a vector, an entry of a table.
It is at least 0, and larger for records that should lie nearer. It is written against
the array namespace of its inputs, so that one function serves the NumPy sampler, the
compiled step and the metrics.
"""

from collections.abc import Mapping
import dataclasses
import functools

from deeprank_jax.data.records import Records
from deeprank_jax.registry import Registry
from deeprank_jax.relevance.attributes import Attributes
from deeprank_jax.relevance.base import (
    Array,
    LabelRelevance,
    Relevance,
    check_attributes,
)
from deeprank_jax.relevance.check import check
from deeprank_jax.relevance.embedding import Embedding
from deeprank_jax.relevance.golden.relevance import Golden
from deeprank_jax.relevance.hierarchy import Hierarchy
from deeprank_jax.relevance.label_function import LabelFunction
from deeprank_jax.relevance.place import Place
from deeprank_jax.relevance.same_class import SameClass
from deeprank_jax.relevance.table import Table
from deeprank_jax.relevance.totals import total_relevance
from deeprank_jax.relevance.within_category import WithinCategory

__all__ = [
    "RELEVANCES",
    "Array",
    "Attributes",
    "Embedding",
    "Golden",
    "Hierarchy",
    "LabelFunction",
    "LabelRelevance",
    "Place",
    "Relevance",
    "SameClass",
    "Table",
    "WithinCategory",
    "attach",
    "check",
    "create_relevance",
    "register",
    "register_relevance",
    "total_relevance",
]

# A function `fn(a, b)` of labels `[..., L]` can be registered in place of a class.
RELEVANCES: Registry[Relevance] = Registry(
    "config.relevance",
    {
        "same_class": SameClass,
        "hierarchy": Hierarchy,
        "attributes": Attributes,
        "embedding": Embedding,
        "golden": Golden,
        "place": Place,
        "table": Table,
    },
    methods=("attributes", "pairwise"),
    from_function=lambda fn: functools.partial(LabelFunction, fn),
)
register = register_relevance = RELEVANCES.register


def create_relevance(
    name: str, *, category_level: int | None = None, **options: object
) -> Relevance:
    """Creates a relevance by its registered name.

    Args:
      name: Name in `RELEVANCES`.
      category_level: Level of the labels that is the paper's category; None for one
        category. A relevance that does not follow the labels is 0 across categories.
      **options: Options of the kind.

    Raises:
      ConfigError: The name is not registered, or an option is unknown, missing or out
        of its range.
      DataError: A file of the relevance cannot be read.
    """
    relevance = RELEVANCES.create({"name": name, **options})
    if category_level is None or isinstance(relevance, LabelRelevance):
        return relevance
    return WithinCategory(relevance, category_level)


def attach(relevance: Relevance, splits: Mapping[str, Records]) -> dict[str, Records]:
    """Returns the records of each split with the attributes that `relevance` compares.

    Args:
      relevance: Relevance that drives the sampler.
      splits: Records of all splits of the dataset by name; a table or a file of
        vectors may be for all of them.

    Raises:
      DataError: The attributes of a record are not known, or the relevance breaks a
        rule of `Relevance`.
    """
    attributes = relevance.attributes(list(splits.values()))
    check_attributes(attributes, list(splits.values()))
    attached = {
        name: dataclasses.replace(records, attributes=values)
        for (name, records), values in zip(splits.items(), attributes, strict=True)
    }
    check(relevance, attached)
    return attached
