r"""The first of two stages on emoji: EfficientNet-Lite0 learns to tell 539 of them.

From ImageNet's weights. It knows 97 % of its few images by heart after 250 steps, so
they are varied more than the demo's. What the trunk says is measured as an embedding.

Expected: test Recall@1 .791 (Lite0 as it comes .491, pixels .422), MAP@R .568 (.261,
.204); 14 minutes on two CPU cores.

  python -m tools.prepare --config=configs/emoji.py
  python -m deeprank_jax.main --config=configs/pretrain_emoji_lite0.py
"""

import ml_collections

from configs import pretrain_emoji


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration."""
    config = pretrain_emoji.get_config()
    config.num_steps = 500
    config.batch_size = 128
    config.data.image_size = 96
    config.data.augment.update(
        shift_pixels=4, color_jitter=0.5, zoom=0.25, rotate_degrees=15.0
    )
    config.model.trunk = dict(name="efficientnet_lite0")
    config.model.weights = "package"
    return config
