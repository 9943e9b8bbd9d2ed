r"""The paper's first stage: AlexNet learns ImageNet's classes. For one GPU.

The optimizer is Krizhevsky's: batches of 128, momentum .9 as of Polyak, not Nesterov,
and his weight decay. The schedule is ours, as is label smoothing. Not run yet on the
real images; 1.3 million photographs, which have to be downloaded by hand before TFDS
can read them.

  deeprank train --config=pretrain_deep_ranking \
      --config.data.dir=data

`configs/deep_ranking.py` goes on from `runs/pretrain_deep_ranking`.
"""

import ml_collections

from deeprank_jax.configs import deep_ranking


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration."""
    config = deep_ranking.get_config()
    config.task = dict(name="classification", level=-1, held_out=0.01)
    config.loss = dict(name="cross_entropy", label_smoothing=0.1)
    config.batch_size = 128
    config.num_steps = 900_000  # 90 epochs.
    config.data.source = dict(name="tfds", dataset="imagenet2012", levels=("label",))
    config.data.augment.update(shift_pixels=16, flip=True, color_jitter=0.2)
    config.evaluation.best_metric = "classification/top1"
    config.optimizer.learning_rate = 1e-2
    config.optimizer.nesterov = False
    config.optimizer.l2_penalty = 2.5e-4  # The gradient of Krizhevsky's 5e-4 / 2.
    return config
