"""Tasks: what a network is trained for, by the name in `config.task`."""

from collections.abc import Mapping

import jax
import ml_collections

from deeprank_jax.data.records import Records
from deeprank_jax.relevance import Relevance
from deeprank_jax.sampling import create
from deeprank_jax.sampling.labelled_sampler import LabelledSampler
from deeprank_jax.sampling.stream import Sampler
from deeprank_jax.training import step as step_lib
from deeprank_jax.training.tasks import classification, ranking
from deeprank_jax.training.tasks.ranking import make_run_loss


def create_objective(
    config: ml_collections.ConfigDict, relevance: Relevance
) -> step_lib.Objective:
    """Returns what the network is trained for."""
    if config.task == "classification":
        return classification.make_classification(config.classification.label_smoothing)
    return ranking.make_ranking(make_run_loss(config, relevance))


def create_run_sampler(
    config: ml_collections.ConfigDict,
    records: Mapping[str, Records],
    relevance: Relevance,
    classes: classification.Classes | None,
) -> Sampler:
    """Returns what gives this process's part of each batch."""
    share = {"shard": jax.process_index(), "num_shards": jax.process_count()}
    if classes is not None:
        labels = classes.labels[classes.learned]
        return LabelledSampler(classes.learned, labels, seed=config.seed, **share)
    others = [part for split, part in records.items() if split != "train"]
    return create.create_sampler(config, records["train"], relevance, others, **share)
