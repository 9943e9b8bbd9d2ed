r"""Your own images, one folder per class: DIR/fine/image.jpg or DIR/coarse/fine/....

The leaf folder is the class. Training begins with the features of EfficientNet-Lite0,
from ImageNet, and changes them gently; the checkpoint that is best on validation is
kept, which may be the network before training. The size of images and groups and the
number of steps suit the data if they are None.

Three tenths of the classes are kept for testing, so that the metrics describe unseen
classes, and a fifth select the checkpoint; with fewer than two classes for either,
images are split instead, and the report says so.

  deeprank train --config=folder \
      --config.data.dir=DIR --workdir=runs/mine

With coarse folders, give each level a relevance, from coarse to fine:
`--config.relevance.name=hierarchy --config.relevance.levels="(0.02, 1.0)"`.
"""

import ml_collections
from ml_collections.config_dict import placeholder

from deeprank_jax.configs import base


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration."""
    config = base.get_config()
    config.data.source.update(test_share=0.3, validation_share=0.2)
    config.num_steps = placeholder(int)
    config.batch_size = placeholder(int)
    config.data.image_size = placeholder(int)
    config.data.augment.update(zoom=0.2, rotate_degrees=10.0)

    # Each image of a batch is compared with all others.
    config.sampler.positives_per_anchor = placeholder(int)
    config.sampler.negatives_per_anchor = 0
    config.loss = dict(name="multi_similarity")

    config.model.trunk = dict(name="efficientnet_lite0")
    config.model.weights = "package"
    config.model.paths = ()
    config.model.embedding_dim = placeholder(int)
    # Few images would give poor statistics.
    config.model.batch_norm = "frozen"
    config.optimizer.learning_rate = 1e-4
    config.optimizer.decoupled_weight_decay = 0.05
    # Half-way between the start and the last steps, which is safer than either.
    config.optimizer.ema_decay = 0.98

    config.eval_every = placeholder(int)
    config.patience = 5
    # It uses all images of a class, so it is steadier than Recall@1.
    config.evaluation.best_metric = "retrieval/map@r"
    return config
