"""Tasks, by the names of `config.task`."""

from collections.abc import Mapping

import ml_collections

from deeprank_jax.registry import Registry
from deeprank_jax.relevance import Relevance
from deeprank_jax.training.tasks.attributes import Attributes
from deeprank_jax.training.tasks.autoencoder import Autoencoder
from deeprank_jax.training.tasks.base import Task
from deeprank_jax.training.tasks.classification import Classification
from deeprank_jax.training.tasks.pairs import Pairs
from deeprank_jax.training.tasks.ranking import Ranking
from deeprank_jax.training.tasks.self_supervised import SelfSupervised

__all__ = [
    "TASKS",
    "Attributes",
    "Autoencoder",
    "Classification",
    "Pairs",
    "Ranking",
    "SelfSupervised",
    "Task",
    "create_task",
    "register_task",
]

TASKS: Registry[Task] = Registry(
    "config.task",
    {
        "ranking": Ranking,
        "classification": Classification,
        "attributes": Attributes,
        "self_supervised": SelfSupervised,
        "autoencoder": Autoencoder,
        "pairs": Pairs,
    },
    methods=(
        "prepare",
        "create_model",
        "create_sampler",
        "objective",
        "validate",
        "health",
        "describe",
    ),
    attributes=("needs_records", "draws_triplets", "augments_alone", "METRICS"),
)
register_task = TASKS.register


def create_task(config: ml_collections.ConfigDict, relevance: Relevance) -> Task:
    """Creates the task of a config.

    Args:
      config: Whole configuration.
      relevance: Relevance of the run.

    Raises:
      ConfigError: No such task exists, or an option or the loss does not fit it.
    """
    section: Mapping[str, object] = config.task.to_dict()
    return TASKS.create(section, config=config, relevance=relevance)
