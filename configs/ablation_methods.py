r"""Methods of learning an embedding, side by side on emoji at equal numbers of images.

Each arm trains the small network of the ablations on 96 images a step, with the better
of two learning rates on validation with another seed. Losses of triplets have 32 of
them, losses on all pairs four designs of each of 24 emoji, and losses with a vector per
class 96 single images. The embedding of these is the trunk's, without a linear map or a
low-resolution path, but in the arms named after the embedding and sub-centers. The last
arm sees no label, but two views of 48 images.

Expected: Recall@1 .673 of ArcFace on the embedding, .661 of CosFace and .625 of the
demo's loss, which has the best similarity precision (.874 against .863); more than two
hours on two busy CPU cores.

  deeprank prepare --config=emoji
  deeprank ablation --config=ablation_methods --jobs=2
"""

import ml_collections

from deeprank_jax.configs import ablation_graded, simclr_emoji

_TRIPLETS = {
    "batch_size": 32,
    "sampler.positives_per_anchor": 1,
    "sampler.negatives_per_anchor": 1,
    "sampler.min_positive_relevance": 0.0,
}
_SINGLE_IMAGES = {"task.name": "classification", "batch_size": 96}
_ARCFACE_EMBEDDING = {
    **_SINGLE_IMAGES,
    "task.features": "embedding",
    "loss.name": "arcface",
}
# The views of `configs/simclr_emoji.py`.
_VIEWS = {
    "task.name": "self_supervised",
    **{
        f"data.augment.{name}": value
        for name, value in simclr_emoji.get_config().data.augment.items()
    },
}

# Arms of `deeprank ablation`; the first, the loss of the demo, is compared with each.
ARMS = {
    "sum": {},
    "triplet_sampled": {
        **_TRIPLETS,
        "loss.name": "triplet_hinge",
        "loss.miner.name": "sampled",
    },
    "triplet_semi_hard": {
        **_TRIPLETS,
        "loss.name": "triplet_hinge",
        "loss.miner.name": "semi_hard",
        "loss.symmetric": True,
    },
    "contrastive": {"loss.name": "contrastive"},
    "multi_similarity": {"loss.name": "multi_similarity"},
    "supcon": {"loss.name": "supcon"},
    "rank_n_contrast": {"loss.name": "rank_n_contrast"},
    "circle": {"loss.name": "circle"},
    "fast_ap": {"loss.name": "fast_ap"},
    "proxy_anchor": {**_SINGLE_IMAGES, "loss.name": "proxy_anchor"},
    "softmax": {**_SINGLE_IMAGES, "loss.name": "cross_entropy"},
    "center": {**_SINGLE_IMAGES, "loss.name": "center"},
    "normface": {**_SINGLE_IMAGES, "loss.name": "normface"},
    "cosface": {**_SINGLE_IMAGES, "loss.name": "cosface"},
    "arcface": {**_SINGLE_IMAGES, "loss.name": "arcface"},
    "arcface_embedding": _ARCFACE_EMBEDDING,
    "arcface_sub_centers": {**_ARCFACE_EMBEDDING, "loss.sub_centers": 3},
    "nt_xent": {
        **_VIEWS,
        "loss.name": "nt_xent",
        "loss.temperature": 0.2,
        "batch_size": 48,
    },
}
GRID = {"optimizer.learning_rate": (2e-3, 6e-3)}
TUNING_SEED = ablation_graded.TUNING_SEED
SEEDS = ablation_graded.SEEDS[:3]
METRICS = ablation_graded.METRICS


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the first arm."""
    config = ablation_graded.get_config()
    config.num_steps = 500
    config.eval_every = 250
    config.checkpoint_every = 500
    config.schedule.warmup_steps = 100
    return config
