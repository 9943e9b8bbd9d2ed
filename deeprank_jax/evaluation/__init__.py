"""Evaluators: made once for a split, `run(embeddings)` yields `(name, value)`.

`measure(embeddings)` has the same metrics query by query.

An evaluator never sees a model: whatever can embed a split is measured by the same
code. Records whose image was bad are left out by `where`, the `ok` of `embed_split`.
"""

from deeprank_jax.evaluation.clustering import Clustering
from deeprank_jax.evaluation.embed import embed_split
from deeprank_jax.evaluation.hierarchical import HierarchicalAP
from deeprank_jax.evaluation.retrieval import Retrieval
from deeprank_jax.evaluation.scores import Evaluator, QueryScores
from deeprank_jax.evaluation.stored_triplets import load_triplets, save_triplets
from deeprank_jax.evaluation.triplets import Triplets

__all__ = [
    "Clustering",
    "Evaluator",
    "HierarchicalAP",
    "QueryScores",
    "Retrieval",
    "Triplets",
    "embed_split",
    "load_triplets",
    "save_triplets",
]
