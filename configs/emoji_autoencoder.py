r"""The demo's emoji without labels: a decoder restores each image from its embedding.

Network, images and steps are those of `configs/emoji.py`; labels serve the metrics
alone. The network sees images with noise and the loss the same images without it, at
half their size.

Expected: test Recall@1 .493 (pixels .422, untrained .398, and .460 once whitened),
MAP@R .264, and .500 and .483 where queries have noise of .1 and .2; 23 minutes on two
busy CPU cores.

  deeprank prepare --config=emoji_autoencoder
  deeprank train --config=emoji_autoencoder
"""

import ml_collections

from deeprank_jax.configs import emoji


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration."""
    config = emoji.get_config()
    config.task = dict(name="autoencoder", noise=0.1)
    config.loss = dict(name="reconstruction")
    config.batch_size = 192
    config.data.augment.update(quarter_turns=0.0, swap_colors=0.0)
    config.evaluation.evaluators.noise = dict(sigmas=(0.1, 0.2))
    config.optimizer.learning_rate = 3e-3
    return config
