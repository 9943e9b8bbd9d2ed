r"""Ablation of graded relevance: losses that use it against losses of 0/1, on emoji.

Four arms train the same small network on the same batches, four designs of each of 24
emoji. `supcon` and `multi_similarity` only tell the same emoji from others.
`rank_n_contrast` is SupCon with all levels of the relevance: the same emoji, the same
subcategory, the same category. `sum` adds it to multi-similarity, as the demo does.
Each arm has the better of two learning rates on validation with another seed; five
further seeds are then compared.

Expected: similarity precision .882 against .876 of SupCon, and .881 of the sum against
.872; hierarchical average precision .330 against .300, .322 against .261; MAP@R .411
against .393, .431 against .437. An hour on two CPU cores.

  deeprank prepare --config=emoji
  deeprank ablation --config=ablation_graded --jobs=2
"""

import ml_collections

from deeprank_jax.configs import ablation_multiscale, emoji

_GRADED = {"loss.name": "rank_n_contrast", "loss.relevance_power": 0.75}
# Arms of `deeprank ablation`, and those that are compared.
ARMS = {
    "rank_n_contrast": _GRADED,
    "supcon": {"loss.name": "supcon"},
    "sum": {},
    "multi_similarity": {"loss.name": "multi_similarity"},
}
PAIRS = (("rank_n_contrast", "supcon"), ("sum", "multi_similarity"))
GRID = {"optimizer.learning_rate": (3e-3, 6e-3)}
TUNING_SEED = ablation_multiscale.TUNING_SEED
SEEDS = ablation_multiscale.SEEDS
METRICS = (*ablation_multiscale.METRICS, "hierarchical/h_ap")


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the sum of two losses."""
    config = ablation_multiscale.get_config()
    demo = emoji.get_config()
    config.batch_size = 24
    config.sampler = demo.sampler
    config.loss = demo.loss
    config.loss.terms.multi_similarity.memory_size = 0
    config.optimizer.ema_decay = demo.optimizer.ema_decay
    config.schedule.warmup_steps = demo.schedule.warmup_steps
    config.evaluation.evaluators.hierarchical = {}
    config.evaluation.best_metric = "retrieval/ndcg@10"
    return config
