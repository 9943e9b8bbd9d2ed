r"""The well-known Keras variant with VGG16, without its mistakes. For one GPU.

VGG16 to its second fully connected layer beside two shallow paths, 4,096 dimensions,
margin 1, Nesterov's momentum, 8 triplets a batch. Corrected are: embeddings may be
negative; the hinge applies to each triplet, not to the batch's mean; distances are
squared; the paths see a smaller picture, not every 16th pixel of a convolution; dropout
keeps .6 instead of dropping it; weights decay; a triplet is mirrored as a whole.

Not run yet at this size. Its trunk began with ImageNet's weights; with a file of
torchvision's VGG16:

  deeprank train --config=keras_vgg16 \
      --config.data.dir=DIR --config.model.weights=vgg16.pth
"""

import ml_collections

from deeprank_jax.configs import deep_ranking


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration."""
    config = deep_ranking.get_config()
    config.num_steps = 100_000
    config.batch_size = 8
    config.data.image_size = 224
    config.data.augment.update(shift_pixels=16, flip=True, color_jitter=0.0)
    config.model.trunk = dict(name="vgg16", dropout_keep=0.6)
    return config
