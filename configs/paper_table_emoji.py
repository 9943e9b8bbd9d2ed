r"""The paper's table on emoji: hand-made descriptors, OASIS and networks, side by side.

All networks have the demo's trunk and see 1,000 batches: the first learns to classify
the 539 emoji of the training split, the others start from its weights. Three networks
are not the paper's: they learn by losses on all pairs of a batch.

Expected: similarity precision .884 of deep ranking, .883 of the trunk alone, .865 of
OASIS, .855 of softmax after as many images, .803 of HOG; Recall@1 .725 of SupCon, .692
of deep ranking; two hours on two busy CPU cores with --jobs=2, 12 minutes of them for
the hand-made descriptors.

  deeprank prepare --config=emoji
  deeprank paper-table --config=paper_table_emoji
"""

import itertools

import ml_collections

from deeprank_jax.configs import emoji_paper

_SOFTMAX = {
    "task": "classification",
    "loss": "cross_entropy",
    "batch_size": 192,
    "evaluation.best_metric": "classification/top1",
}
# Groups of four, all pairs of which teach; as many images and batches as large.
_ALL_PAIRS = {
    "init_from": "{softmax}",
    "batch_size": 48,
    "sampler.positives_per_anchor": 3,
    "sampler.negatives_per_anchor": 0,
    "sampler.min_positive_relevance": 0.5,
    "optimizer.learning_rate": 1e-3,
}
_FURTHER = {"init_from": "{softmax}", "optimizer.learning_rate": 1e-3}

# Networks of `deeprank paper-table`; {softmax} stands for the folder of that run.
NETWORKS = {
    "softmax": _SOFTMAX,
    # As many images as the ranking networks see, in batches as large.
    "softmax_further": {**_SOFTMAX, **_FURTHER},
    "single_scale": {**_FURTHER, "model.paths": "()"},
    "deep_ranking": _FURTHER,
    "multi_similarity": {**_ALL_PAIRS, "loss": "multi_similarity"},
    "supcon": {**_ALL_PAIRS, "loss": "supcon"},
    "rank_n_contrast": {**_ALL_PAIRS, "loss": "rank_n_contrast"},
}
# Rows of the networks that are not the paper's.
FURTHER_ROWS = {
    "multi_similarity": (
        "Multi-similarity",
        "deep ranking with this loss, groups of four",
    ),
    "supcon": ("SupCon", "deep ranking with this loss, groups of four"),
    "rank_n_contrast": (
        "Rank-N-Contrast",
        "deep ranking with this loss, groups of four",
    ),
}

# Figure 6: how many negatives are of other categories, and how all are drawn. The runs
# are those of the small network of the ablations.
SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
SWEEP_CONFIG = "ablation_sampling"
SWEEP = {
    f"{mode}_{share:.1f}": {"sampler.mode": mode, "sampler.out_of_class": share}
    for mode, share in itertools.product(("importance", "uniform"), SHARES)
}


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the demo, whose data and metrics are the table's."""
    return emoji_paper.get_config()
