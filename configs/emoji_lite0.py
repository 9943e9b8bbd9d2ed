r"""EfficientNet-Lite0 on emoji, from ImageNet's weights. For two CPU cores.

A low-resolution path stands beside it. The settings were tried for 400 steps only; the
whole run has not been measured yet.

  python -m tools.prepare --config=configs/emoji.py
  python -m deeprank_jax.main --config=configs/emoji_lite0.py
"""

import ml_collections

from configs import emoji


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration."""
    config = emoji.get_config()
    config.num_steps = 2500
    config.data.image_size = 64
    config.data.augment.update(shift_pixels=4, flip=True, color_jitter=0.3)
    config.model.trunk = dict(name="efficientnet_lite0")
    config.model.weights = "package"
    config.loss.margin = 0.5
    config.eval_every = 500
    config.checkpoint_every = 250
    return config
