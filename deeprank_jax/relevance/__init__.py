"""How similar two records should be: one object from sampler to metric.

A relevance compares what it calls the records' attributes: labels, a vector, a number
in a table. It is at least 0, and larger for records that should lie nearer. It is
written against the array namespace of its inputs, so that one function serves the
NumPy sampler, the compiled step and the metrics.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import inspect
from typing import Any, TypeVar

from deeprank_jax.relevance.attributes import Attributes
from deeprank_jax.relevance.base import LabelRelevance, Relevance, check_attributes
from deeprank_jax.relevance.check import check
from deeprank_jax.relevance.embedding import Embedding
from deeprank_jax.relevance.golden.relevance import Golden
from deeprank_jax.relevance.hierarchy import Hierarchy
from deeprank_jax.relevance.label_function import OfLabels
from deeprank_jax.relevance.same_class import SameClass
from deeprank_jax.relevance.table import Table
from deeprank_jax.relevance.totals import total_relevance
from deeprank_jax.relevance.within_category import WithinCategory

# What each kind of relevance needs, and what else it takes.
_RELEVANCE_OPTIONS = {
    "same_class": ((), ()),
    "hierarchy": (("levels",), ()),
    "attributes": (("weights",), ()),
    "embedding": (("file",), ("kernel", "scale")),
    "golden": (("file",), ()),
    "table": (("file",), ()),
}
_NEEDED = {
    "levels": "a relevance for each level, from coarse to fine",
    "weights": "a weight for each label that counts, by its name",
    "file": "the path of a file",
}

__all__ = [
    "KINDS",
    "Attributes",
    "Embedding",
    "Golden",
    "Hierarchy",
    "LabelRelevance",
    "OfLabels",
    "Relevance",
    "SameClass",
    "Table",
    "WithinCategory",
    "attach",
    "check",
    "create_relevance",
    "register",
    "total_relevance",
]

KINDS: dict[str, Callable[..., Relevance]] = {
    "same_class": SameClass,
    "hierarchy": Hierarchy,
    "attributes": Attributes,
    "embedding": Embedding,
    "golden": Golden,
    "table": Table,
}
_BUILT_IN = frozenset(KINDS)

_Kind = TypeVar("_Kind", bound=Callable[..., Any])


def register(name: str) -> Callable[[_Kind], _Kind]:
    """Returns a decorator that makes a kind of one's own known, e.g. in a config file.

    It takes a class with the methods of `Relevance`, whose options are those of its
    constructor, or a function `fn(a, b)` of labels `[..., L]`, which returns `[...]`.
    The name may be registered again, as it is when a config file is read twice.

    Args:
      name: for `config.relevance.name`.

    Raises:
      ValueError: the name is one of this package's, or the class lacks a method.
    """
    if name in _BUILT_IN:
        raise ValueError(
            f"The relevance {name!r} is built in; register yours under another name."
        )

    def decorate(kind: _Kind) -> _Kind:
        if not inspect.isclass(kind):
            KINDS[name] = functools.partial(OfLabels, kind)
            return kind
        for method in ("attributes", "pairwise"):
            if not callable(getattr(kind, method, None)):
                raise ValueError(
                    f"The relevance {name!r} has no {method}(); give {kind.__name__} "
                    "the methods of deeprank_jax.relevance.Relevance."
                )
        KINDS[name] = kind
        return kind

    return decorate


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
    signature = inspect.signature(KINDS[name])
    try:
        signature.bind(**options)
    except TypeError as error:
        raise ValueError(
            f"config.relevance does not fit the relevance {name!r}: {error}; its "
            f"options are {', '.join(signature.parameters) or 'none'}."
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
      ValueError: something is not known of a record, or the relevance does not do what
        `Relevance` promises.
    """
    found = relevance.attributes(list(splits.values()))
    check_attributes(found, list(splits.values()))
    attached = {
        name: dataclasses.replace(records, attributes=attributes)
        for (name, records), attributes in zip(splits.items(), found, strict=True)
    }
    check(relevance, attached)
    return attached


def _check_relevance(options: Mapping[str, Any]) -> None:
    """Checks that the options are those of the kind, and what it needs is given."""
    kind = options["name"]
    if kind not in _RELEVANCE_OPTIONS:  # One of the user's own.
        return
    needed, optional = _RELEVANCE_OPTIONS[kind]
    given = {key: value for key, value in options.items() if key != "name" and value}
    for key in needed:
        if key not in given:
            raise ValueError(
                f"config.relevance.name={kind!r} needs config.relevance.{key}: "
                f"{_NEEDED[key]}."
            )
    for key, value in given.items():
        if key not in (*needed, *optional):
            takes = " and ".join((*needed, *optional)) or "no options"
            raise ValueError(
                f"config.relevance.{key}={value} does not go with "
                f"config.relevance.name={kind!r}, which takes {takes}."
            )
    if given.get("kernel") == "cosine" and "scale" in given:
        raise ValueError(
            f"config.relevance.scale={given['scale']} does not go with "
            'config.relevance.kernel="cosine", which has no scale.'
        )
