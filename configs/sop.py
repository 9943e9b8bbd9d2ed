r"""Stanford Online Products: 12 kinds of things for sale, 22,634 products. For one GPU.

Train and test products are disjoint, as the dataset gives them. Not run yet on the
real images; 120,053 photographs, downloaded by TFDS.

  python -m deeprank_jax.cli.prepare --config=configs/sop.py
  python -m deeprank_jax.main --config=configs/sop.py
"""

import ml_collections

from configs import cars196


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration."""
    config = cars196.get_config()
    config.num_steps = 30_000
    config.data.name = "stanford_online_products"
    config.data.levels = ("super_class_id", "class_id")
    config.data.split_by = "dataset"
    config.relevance.name = "hierarchy"
    config.relevance.levels = (0.0001, 1.0)
    config.evaluation.gains = (0.1, 1.0)
    config.sampler.category_level = 0
    return config
