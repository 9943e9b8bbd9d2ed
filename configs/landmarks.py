r"""Landmarks, products and other classes by the recipe of landmark recognition.

Folders are those of `configs/folder.py`: one per class, with subfolders or without. The
last map of EfficientNet-Lite0 is pooled by GeM, a linear map and BatchNorm give the
embedding, and ArcFace compares it with three vectors per class, of which the nearest
counts: a landmark has its inside, its outside and wrong labels. Queries that show none
of the classes are told apart afterwards:

  deeprank train --config=landmarks \
      --config.data.dir=DIR --workdir=runs/landmarks
  deeprank export --workdir=runs/landmarks --out=landmarks
  deeprank train-similarity OTHER_DIR --model=landmarks \
      --kind=out_of_domain --out=other.npz

Expected: on 385 emoji of animals in 55 folders, of which 16 test, Recall@1 .812 after
60 steps (.696 before training, ImageNet's features alone .759, pixels .723), surely
better than each; 5 minutes on two busy CPU cores. Not run on landmarks.

References:
  Henkel and Singer, Supporting large-scale image recognition with out-of-domain
  samples, 2020, https://arxiv.org/abs/2010.01650.
"""

import ml_collections

from deeprank_jax.configs import folder


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration."""
    config = folder.get_config()
    config.task = dict(name="classification", features="embedding")
    config.loss = dict(name="arcface", margin=0.4, sub_centers=3)
    config.model.trunk = dict(name="efficientnet_lite0", pooling="gem")
    config.model.embedding_dim = 512
    config.model.embedding_norm = True
    # The embedding and the vectors begin at random, the trunk does not.
    config.optimizer.learning_rate = 1e-3
    config.optimizer.trunk_scale = 0.1
    return config
