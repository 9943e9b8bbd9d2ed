r"""The demo's emoji without labels: two views of each image, and the loss of SimCLR.

Network, images and steps are those of `configs/emoji.py`; labels serve the metrics
alone.

Not run yet in full, and its augmentation is still to be chosen: in a run of 240 steps
validation MAP@R was .250 after 80 and .208 after 160, below the .279 of the untrained
network.

  deeprank prepare --config=simclr_emoji
  deeprank train --config=simclr_emoji
"""

import ml_collections

from deeprank_jax.configs import emoji


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration."""
    config = emoji.get_config()
    config.task = dict(name="self_supervised", head_width=512, head_dim=128)
    config.loss = dict(name="nt_xent", temperature=0.5)
    # 192 images a step, as the demo has: two views of each of 96.
    config.batch_size = 96
    # Each view on its own. Designs of an emoji differ in colours and details, so views
    # differ in both.
    config.data.augment.update(
        shift_pixels=2,
        flip=True,
        color_jitter=0.4,
        quarter_turns=0.0,
        swap_colors=0.5,
        grayscale=0.2,
        crop_area=0.4,
    )
    return config
