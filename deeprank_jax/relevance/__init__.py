"""How similar two records should be: one object from sampler to metric.

A relevance compares what it calls the records' attributes: labels, a vector, a number
in a table. It is at least 0, and larger for records that should lie nearer. It is
written against the array namespace of its inputs, so that one function serves the
NumPy sampler, the compiled step and the metrics.
"""

from collections.abc import Callable, Mapping
import dataclasses
import inspect
from typing import Any

from deeprank_jax.relevance.base import LabelRelevance, Relevance
from deeprank_jax.relevance.category import WithinCategory
from deeprank_jax.relevance.hierarchy import Hierarchy
from deeprank_jax.relevance.same_class import SameClass

__all__ = [
    "KINDS",
    "Hierarchy",
    "LabelRelevance",
    "Relevance",
    "SameClass",
    "WithinCategory",
    "attach",
    "create_relevance",
]

KINDS: dict[str, Callable[..., Relevance]] = {
    "same_class": SameClass,
    "hierarchy": Hierarchy,
}


def create_relevance(
    name: str, *, category_level: int | None = None, **options: Any
) -> Relevance:
    """Creates a relevance by its registered name.

    Args:
      name: a key of `KINDS`.
      category_level: the level of the labels that is the paper's category; None for
        one category. A relevance that does not follow the labels is 0 across
        categories.
      **options: of the kind.

    Raises:
      ValueError: the name is not registered, or the kind has no such option or needs
        another.
    """
    if name not in KINDS:
        raise ValueError(f"No relevance is named {name!r}; there are {sorted(KINDS)}.")
    try:
        inspect.signature(KINDS[name]).bind(**options)
    except TypeError as error:
        raise ValueError(
            f"config.relevance does not fit the relevance {name!r}: {error}; its "
            f"options are {', '.join(inspect.signature(KINDS[name]).parameters)}."
        ) from error
    relevance = KINDS[name](**options)
    if category_level is None or isinstance(relevance, LabelRelevance):
        return relevance
    return WithinCategory(relevance, category_level)


def attach(relevance: Relevance, splits: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the records of each split with the attributes that `relevance` compares.

    Args:
      relevance: of the run.
      splits: `Records` by split; all that the dataset has, so that what is known of
        records that do not exist is found out.

    Raises:
      ValueError: something is not known of a record.
    """
    found = relevance.attributes(list(splits.values()))
    return {
        name: dataclasses.replace(records, attributes=attributes)
        for (name, records), attributes in zip(splits.items(), found, strict=True)
    }
