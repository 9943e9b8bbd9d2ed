r"""EfficientNet-Lite0, from ImageNet's weights: the best Recall@1 on emoji.

It learns by the recipe of `configs/emoji.py`, at 128 pixels. An embedding is its
trunk's features, followed by the embedding of the demo's network, trained beside it.

Expected: test Recall@1 .832 (Lite0 as it comes .530, pixels .422), MAP@R .672 (.295,
.204), similarity precision .899 (.846, .774); 36 minutes on two CPU cores.

  deeprank prepare --config=emoji
  deeprank train --config=emoji_lite0
"""

import ml_collections

from deeprank_jax.configs import emoji


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration."""
    config = emoji.get_config()
    paths = config.model.paths
    config.num_steps = 540
    config.eval_every = 270
    config.batch_size = 32  # Four designs of each.
    config.data.image_size = 128
    config.data.augment.update(
        shift_pixels=4, color_jitter=0.2, zoom=0.15, rotate_degrees=10.0
    )
    config.model.trunk = dict(name="efficientnet_lite0")
    config.model.weights = "package"
    config.model.paths = ()
    config.model.embedding_dim = None
    # The demo's network, at 43 of its 48 pixels. Not pretrained, it errs elsewhere.
    config.model.ensemble = (
        dict(trunk=dict(name="convnet"), embedding_dim=512, subsample=3, paths=paths),
    )
    config.model.embed_shift = 4
    config.model.whitening_power = 0.6
    # The other network learns at the demo's rate.
    config.optimizer.learning_rate = 6e-3
    config.optimizer.trunk_scale = 1 / 6
    config.optimizer.decoupled_weight_decay = 0.1
    config.schedule.warmup_steps = 100
    return config
