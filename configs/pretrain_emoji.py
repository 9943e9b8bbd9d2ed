r"""The first of two stages on emoji: the demo's trunk learns to tell 539 of them.

A tenth of the training images is held out and asked about. Then rank, starting from
what the trunk has learned:

  python -m deeprank_jax.main --config=configs/pretrain_emoji.py
  python -m deeprank_jax.main --config=configs/emoji.py \
      --config.init_from=runs/pretrain_emoji --workdir=runs/emoji_stage2
"""

import ml_collections

from configs import emoji


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration."""
    config = emoji.get_config()
    config.task = "classification"
    config.batch_size = 192
    config.evaluation.best_metric = "classification/top1"
    return config
