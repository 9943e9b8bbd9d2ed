r"""The demo's emoji without labels: two views of each image, and the loss of SimCLR.

Network, images and steps are those of `configs/emoji.py`; labels serve the metrics
alone.

Expected: test Recall@1 .551 (pixels .422, untrained .398), MAP@R .313 (.204, .179); 15
minutes on a busy CPU core. Much of it is the whitening, which is fitted without labels,
too: by itself it takes the untrained network to .506 and .275.

  deeprank prepare --config=simclr_emoji
  deeprank train --config=simclr_emoji
"""

import ml_collections

from deeprank_jax.configs import emoji


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration."""
    config = emoji.get_config()
    config.task = dict(name="self_supervised", head_width=512, head_dim=128)
    config.loss = dict(name="nt_xent", temperature=0.2)
    # 192 images a step, as the demo has: two views of each of 96.
    config.batch_size = 96
    # Each view on its own. Designs of an emoji differ in shades and details, and agree
    # in the places of their parts, which crops and mirroring would teach to ignore.
    config.data.augment.update(
        shift_pixels=2,
        zoom=0.1,
        rotate_degrees=5.0,
        flip=False,
        color_jitter=0.4,
        grayscale=0.3,
        blur=2.0,
        cutout=0.4,
        quarter_turns=0.0,
        swap_colors=0.0,
    )
    config.model.whitening_power = 0.8
    config.optimizer.learning_rate = 1e-3
    config.schedule.warmup_steps = 100
    return config
