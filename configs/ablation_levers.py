r"""Ablation of the levers beside the loss, each alone, on emoji.

`base` trains the network of `ablation_graded` by the sum of two losses, without any of
the levers. Each further arm adds one, of the demo, of `config.data.augment` or for
embedding; `all` has those of the demo. Nothing is tuned, so that an arm may do better
with another learning rate.

Expected: Recall@1 .619 of `base`, +.019 by shifted embeddings, +.012 by whitening,
+.017 by all, -.012 by turns and colors, -.024 by mirrored embeddings; 129 minutes on
one CPU core.

  deeprank prepare --config=emoji
  deeprank ablation --config=ablation_levers --jobs=2
"""

import ml_collections

from deeprank_jax.configs import ablation_graded

_MEMORY = {"loss.terms.multi_similarity.memory_size": 768}
_AVERAGE = {"optimizer.ema_decay": 0.98}
_TURNS = {"data.augment.quarter_turns": 0.6, "data.augment.swap_colors": 0.5}
_SHIFTS = {"model.embed_shift": 1}
_FLIPS = {"model.embed_flip": True}
_WHITENING = {"model.whitening_power": 0.4}

# Arms of `deeprank ablation`, and those that are compared.
ARMS = {
    "base": {},
    "moving_average": _AVERAGE,
    "memory": _MEMORY,
    "turns_and_colors": _TURNS,
    "shifted_embeddings": _SHIFTS,
    "flipped_embeddings": _FLIPS,
    "whitening": _WHITENING,
    "random_crop": {"data.augment.crop_area": 0.6},
    "cutout": {"data.augment.cutout": 0.3},
    "grayscale": {"data.augment.grayscale": 0.2},
    "mixing": {"data.augment.mixing": 0.3},
    "all": _MEMORY | _AVERAGE | _TURNS | _SHIFTS | _WHITENING,
}
PAIRS = tuple((arm, "base") for arm in ARMS if arm != "base")
# Nothing is tuned.
GRID = {}
TUNING_SEED = ablation_graded.TUNING_SEED
SEEDS = ablation_graded.SEEDS
METRICS = ablation_graded.METRICS


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the first arm."""
    config = ablation_graded.get_config()
    config.num_steps = 500
    config.eval_every = 250
    config.checkpoint_every = 500
    config.optimizer.ema_decay = 0.0
    config.schedule.warmup_steps = 100
    return config
