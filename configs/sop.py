r"""Stanford Online Products: 12 kinds of things for sale, 22,634 products. For one GPU.

Train and test products are disjoint, as the dataset gives them. Not run yet on the
real images; 120,053 photographs, downloaded by TFDS.

  deeprank prepare --config=sop
  deeprank train --config=sop
"""

import ml_collections

from deeprank_jax.configs import cars196


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration."""
    config = cars196.get_config()
    config.num_steps = 30_000
    config.data.source = dict(
        name="tfds",
        dataset="stanford_online_products",
        levels=("super_class_id", "class_id"),
    )
    config.relevance = dict(name="hierarchy", levels=(0.0001, 1.0))
    config.evaluation.gains = (0.1, 1.0)
    config.triplets.category_level = 0
    return config
