r"""The paper's network and training, on any folder or TFDS dataset. For one GPU.

AlexNet beside two low-resolution paths at 225 pixels, 4,096 dimensions, dropout that
keeps .6, lambda .001, a fifth of the negatives out of class, images shifted at random.
Margin, learning rate, momentum, batch size, T_p, T_r and buffers are our choices, since
the paper does not give them; so are the pooling strides of the paths, since those of
its figure cannot give the sizes printed there (docs/networks.md).

Not run yet at this size. First the trunk alone, then the whole:

  deeprank train --config=pretrain_deep_ranking \
      --config.data.dir=data
  deeprank train --config=deep_ranking \
      --config.data.dir=DIR --config.init_from=runs/pretrain_deep_ranking

For a TFDS dataset give `--config.data.source.name=tfds
--config.data.source.dataset=stanford_online_products
--config.data.source.levels="('super_class_id', 'class_id')"` and the like, and
relevance for its levels as in `configs/sop.py`, with
`--config.triplets.category_level=0`: out-of-class negatives are of another category,
and without levels there is only one.
"""

import ml_collections

from deeprank_jax.configs import base


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration."""
    config = base.get_config()
    config.num_steps = 375_000  # 24 million triplets, about as many as the paper's.
    config.batch_size = 64

    config.data.image_size = 225
    config.data.cache_mib = 4096
    config.data.workers = 8
    config.data.augment.update(shift_pixels=16, flip=False, color_jitter=0.0)

    config.model.trunk = dict(name="alexnet", dropout_keep=0.6)
    config.model.embedding_dim = 4096
    config.model.paths = (
        dict(subsample=4, kernel=8, stride=4, width=96, pool=3, pool_stride=4),
        dict(subsample=8, kernel=8, stride=4, width=96, pool=7, pool_stride=2),
    )
    config.sampler.out_of_class = 0.2
    config.loss = dict(
        name="triplet_hinge", margin=1.0, symmetric=False, miner=dict(name="sampled")
    )
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.momentum = 0.9
    config.optimizer.nesterov = True
    config.optimizer.l2_penalty = 1e-3
    config.schedule.warmup_steps = 1000
    config.log_every = 100
    config.eval_every = 5000
    config.checkpoint_every = 1000
    return config
