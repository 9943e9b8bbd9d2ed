r"""EfficientNet-Lite0 on emoji, from ImageNet's weights: the best on two CPU cores.

It is trained to classify 539 emoji; the features of its trunk are the embedding. After
250 steps it classifies 95 % of its few training images, in spite of an augmentation
stronger than the demo's.

Expected: test Recall@1 .809 (Lite0 as it comes .491, pixels .422), MAP@R .582 (.261,
.204), similarity precision .904 (.835, .773); 28 minutes on two CPU cores.

  deeprank prepare --config=emoji
  deeprank train --config=emoji_lite0
"""

from deeprank_jax.configs import pretrain_emoji
import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration."""
    config = pretrain_emoji.get_config()
    config.num_steps = 1000
    config.batch_size = 128
    config.data.image_size = 96
    config.data.augment.update(
        shift_pixels=4, color_jitter=0.5, zoom=0.25, rotate_degrees=15.0
    )
    config.model.trunk = dict(name="efficientnet_lite0")
    config.model.weights = "package"
    return config
