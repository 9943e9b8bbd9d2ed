r"""The demo: emoji of seven designs, a small network, 32 pixels... TODO.

python -m deeprank_jax.main --config=configs/emoji.py
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration."""
    config = base.get_config()
    config.data.name = "emoji"
    config.data.dir = "data"
    config.data.levels = ("category", "subcategory", "emoji")
    config.data.name_feature = "name"
    config.data.image_size = 32
    config.relevance.name = "hierarchy"
    config.relevance.levels = (0.001, 0.02, 1.0)
    config.evaluation.gains = (0.1, 0.4, 1.0)
    config.sampler.category_level = 0
    return config
