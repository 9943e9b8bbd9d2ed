r"""Caltech-UCSD Birds: the first 100 species train, the other 100 test. For one GPU.

Not run yet on the real images; 11,788 photographs, downloaded by TFDS.

  deeprank prepare --config=cub200
  deeprank train --config=cub200
"""

import ml_collections

from deeprank_jax.configs import cars196


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration."""
    config = cars196.get_config()
    config.data.source.dataset = "caltech_birds2011"
    return config
