"""Inputs of an evaluation: a network and a labelled dataset."""

from collections.abc import Callable, Mapping
import dataclasses

import ml_collections
import numpy as np

from deeprank_jax.data.records import Records
from deeprank_jax.relevance import Relevance

EmbedFn = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """A trained network and its baselines.

    Attributes:
      name: Title for people.
      description: Facts by title, for the report.
      config: Config of the run that trained it.
      embed: Function from uint8 images `[B, S, S, 3]` to embeddings `[B, D]`.
      before: Networks before training by system: `"untrained"`, and `"frozen"`, the
        trunk alone, where it began with trained weights; none if they are not there.
    """

    name: str
    description: Mapping[str, str]
    config: ml_collections.ConfigDict
    embed: EmbedFn
    before: Mapping[str, EmbedFn] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """Images with labels to evaluate on.

    Attributes:
      name: Title for people.
      split: Name of the split in the results.
      records: Records of the split.
      relevance: Relevance of two records.
      config: Config whose evaluators, triplets and relevance are used.
      others: Records of the other splits; None if they are not known.
    """

    name: str
    split: str
    records: Records
    relevance: Relevance
    config: ml_collections.ConfigDict
    others: tuple[Records, ...] | None = None
