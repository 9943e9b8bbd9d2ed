r"""The first of two stages on emoji: the demo's trunk learns to classify 539 of them.

A tenth of the training images is held out for validation. One command trains it, and
then a ranking network from the trunk's weights:

  deeprank train --config=emoji_paper \
      --config.first_stage=pretrain_emoji --workdir=runs/two_stages
"""

import ml_collections

from deeprank_jax.configs import emoji_paper


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration."""
    config = emoji_paper.get_config()
    config.task = dict(name="classification", level=-1, held_out=0.1)
    config.loss = dict(name="cross_entropy", label_smoothing=0.1)
    config.batch_size = 192
    config.evaluation.best_metric = "classification/top1"
    return config
