"""Similarities of two embeddings, fixed and learned, by name."""

from collections.abc import Mapping
from typing import Any

from deeprank_jax.errors import ConfigError, needs_extra

with needs_extra("train"):
    import flax  # noqa: F401
    import optax  # noqa: F401

from deeprank_jax.registry import Registry, did_you_mean
from deeprank_jax.similarities.base import LearnedSimilarity, Similarity, train
from deeprank_jax.similarities.bilinear import Bilinear
from deeprank_jax.similarities.fixed import (
    Angle,
    CosineDistance,
    Euclidean,
    SquaredEuclidean,
)
from deeprank_jax.similarities.linear import Linear
from deeprank_jax.similarities.out_of_domain import OutOfDomain
from deeprank_jax.similarities.projected_cosine import ProjectedCosine
from deeprank_jax.similarities.simnet import SimNet

__all__ = [
    "SIMILARITIES",
    "Angle",
    "Bilinear",
    "CosineDistance",
    "Euclidean",
    "LearnedSimilarity",
    "Linear",
    "OutOfDomain",
    "ProjectedCosine",
    "SimNet",
    "Similarity",
    "SquaredEuclidean",
    "create_learned",
    "create_similarity",
    "fixed_names",
    "learned_names",
    "register_similarity",
    "train",
]

SIMILARITIES: Registry[Similarity] = Registry(
    "similarity",
    {
        "squared_euclidean": SquaredEuclidean,
        "euclidean": Euclidean,
        "cosine": CosineDistance,
        "angle": Angle,
        "linear": Linear,
        "bilinear": Bilinear,
        "projected_cosine": ProjectedCosine,
        "simnet": SimNet,
        "out_of_domain": OutOfDomain,
    },
    methods=("__call__", "describe"),
    attributes=("is_distance",),
)
register_similarity = SIMILARITIES.register


def create_similarity(
    name: str, options: Mapping[str, Any] | None = None
) -> Similarity:
    """Creates a similarity by name; a learned one is not trained yet.

    Args:
      name: Name of a kind.
      options: Options of the kind.

    Raises:
      ConfigError: No kind has this name, or an option is not one of its own or out of
        range.
    """
    kinds = SIMILARITIES.options(name)
    for option in options or {}:
        if option not in kinds:
            raise ConfigError(
                f"{option!r} is not an option of the similarity {name!r}"
                f"{did_you_mean(option, kinds)}; its options are: "
                f"{', '.join(kinds) or 'none'}."
            )
    return SIMILARITIES.create({**(options or {}), "name": name})


def create_learned(
    name: str, options: Mapping[str, Any] | None = None
) -> LearnedSimilarity:
    """Creates a similarity that can be trained.

    Args:
      name: Name of a learned kind.
      options: Options of the kind.

    Raises:
      ConfigError: See `create_similarity`; or there is nothing to train.
    """
    if name not in SIMILARITIES:
        raise ConfigError(
            f"The similarity {name!r} is not known"
            f"{did_you_mean(name, iter(learned_names()))}; choose one of "
            f"{', '.join(learned_names())}."
        )
    similarity = create_similarity(name, options)
    if not isinstance(similarity, LearnedSimilarity):
        raise ConfigError(
            f"The similarity {name!r} has nothing to train; choose one of "
            f"{', '.join(learned_names())}."
        )
    return similarity


def learned_names() -> list[str]:
    """Returns the names of the kinds that are trained."""
    return [name for name, kind in SIMILARITIES.items() if hasattr(kind, "stages")]


def fixed_names() -> list[str]:
    """Returns the names of the kinds that are not trained."""
    return [name for name in SIMILARITIES if name not in learned_names()]
