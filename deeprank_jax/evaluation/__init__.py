"""Evaluators: created once per split, `run(embeddings)` yields `(name, value)`.

An evaluator never sees a model: the metrics of everything that embeds a split are
computed by the same code. Records whose image was bad are left out by `where`, the `ok`
of `embed_split`.

`config.evaluation.evaluators` names them with their options, e.g.
`dict(retrieval=dict(ks=(1, 5)), clustering=dict())`. Beside its options a constructor
takes the parameters named in `CONTEXT` that it needs.
"""

from collections.abc import Callable
from typing import Never

from deeprank_jax.errors import ConfigError
from deeprank_jax.evaluation.clustering import Clustering
from deeprank_jax.evaluation.codes import Codes
from deeprank_jax.evaluation.embed import embed_split
from deeprank_jax.evaluation.hierarchical import HierarchicalAP
from deeprank_jax.evaluation.noise import Noise
from deeprank_jax.evaluation.pairs import Pairs
from deeprank_jax.evaluation.prefixes import Prefixes
from deeprank_jax.evaluation.rated_triplets import RatedTriplets
from deeprank_jax.evaluation.relevant_retrieval import RelevantRetrieval
from deeprank_jax.evaluation.retrieval import Retrieval
from deeprank_jax.evaluation.sampled_triplets import SampledTriplets
from deeprank_jax.evaluation.scores import (
    Change,
    ChangedQueryEvaluator,
    Evaluator,
    NothingToMeasureError,
    QueryEvaluator,
    QueryScores,
)
from deeprank_jax.evaluation.shared_attributes import SharedAttributes
from deeprank_jax.evaluation.stored_triplets import load_triplets, save_triplets
from deeprank_jax.evaluation.triplets import Triplets
from deeprank_jax.registry import Registry

__all__ = [
    "CONTEXT",
    "EVALUATORS",
    "Change",
    "ChangedQueryEvaluator",
    "Clustering",
    "Codes",
    "Evaluator",
    "HierarchicalAP",
    "Noise",
    "NothingToMeasureError",
    "Pairs",
    "Prefixes",
    "QueryEvaluator",
    "QueryScores",
    "RatedTriplets",
    "RelevantRetrieval",
    "Retrieval",
    "SampledTriplets",
    "SharedAttributes",
    "Triplets",
    "embed_split",
    "load_triplets",
    "register_evaluator",
    "save_triplets",
]

# Parameters that `SplitEvaluation` gives to those evaluators that have them.
CONTEXT = (
    "split",
    "records",
    "labels",
    "attributes",
    "relevance",
    "sampling_relevance",
    "relevance_options",
    "category_level",
    "positive_cap",
    "min_relevance_gap",
    "triplets_path",
    "read_ratings",
    "read_pairs",
    "seed",
    "cache",
)


def _refuse_function(function: Callable[..., object]) -> Never:
    raise ConfigError(
        f"{function.__name__} is a function; an evaluator is a class, derived from "
        "deeprank_jax.evaluation.Evaluator, with METRICS and run()."
    )


EVALUATORS: Registry[Evaluator] = Registry(
    "config.evaluation.evaluators",
    {
        "retrieval": Retrieval,
        "triplets": SampledTriplets,
        "rated_triplets": RatedTriplets,
        "clustering": Clustering,
        "hierarchical": HierarchicalAP,
        "prefixes": Prefixes,
        "pairs": Pairs,
        "codes": Codes,
        "relevant_retrieval": RelevantRetrieval,
        "noise": Noise,
        "shared_attributes": SharedAttributes,
    },
    methods=("run", "describe_metrics"),
    from_function=_refuse_function,
    by_key=True,
)
register_evaluator = EVALUATORS.register
