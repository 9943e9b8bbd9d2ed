r"""EfficientNet-Lite0 on emoji, from ImageNet's weights: the best on two CPU cores.

It learns by the recipe of `configs/emoji.py`, at twice the image size; the features of
its trunk are the embedding.

Expected: test Recall@1 .810 (Lite0 as it comes .491, pixels .422), MAP@R .599 (.261,
.204), similarity precision .908 (.835, .773); 34 minutes on two CPU cores.

  deeprank prepare --config=emoji
  deeprank train --config=emoji_lite0
"""

import ml_collections

from deeprank_jax.configs import emoji


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration."""
    config = emoji.get_config()
    config.batch_size = 32  # Four designs of each.
    config.data.image_size = 96
    config.data.augment.update(
        shift_pixels=4, color_jitter=0.2, zoom=0.15, rotate_degrees=10.0
    )
    config.model.trunk = dict(name="efficientnet_lite0")
    config.model.weights = "package"
    config.model.paths = ()
    config.model.embedding_dim = None
    config.model.embed_shift = 0
    config.optimizer.learning_rate = 1e-3
    config.optimizer.decoupled_weight_decay = 0.1
    config.schedule.warmup_steps = 100
    return config
