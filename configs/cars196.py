r"""Stanford Cars: the first 98 models train, the other 98 test. For one GPU.

Not run yet on the real images; 16,185 photographs, downloaded by TFDS.

  deeprank prepare --config=cars196
  deeprank train --config=cars196
"""

import ml_collections

from deeprank_jax.configs import base


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration."""
    config = base.get_config()
    config.num_steps = 10_000
    config.batch_size = 128

    config.data.source = dict(
        name="tfds", dataset="cars196", levels=("label",), split_by="first_half"
    )
    config.data.dir = "data"
    config.data.image_size = 224
    config.data.cache_mib = 4096
    config.data.workers = 8
    config.data.augment.update(shift_pixels=16, flip=True, color_jitter=0.2)

    config.model.trunk = dict(name="convnet", widths=(64, 128, 256, 512, 512))
    config.model.embedding_dim = 512
    config.model.paths = (
        dict(subsample=4, kernel=8, stride=4, width=96, pool=3, pool_stride=4),
        dict(subsample=8, kernel=8, stride=4, width=96, pool=7, pool_stride=2),
    )
    config.model.dtype = "bfloat16"

    config.optimizer.decoupled_weight_decay = 1e-2
    config.schedule.warmup_steps = 500
    config.log_every = 50
    config.eval_every = 1000
    config.checkpoint_every = 1000
    return config
