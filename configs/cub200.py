r"""Caltech-UCSD Birds: the first 100 species train, the other 100 test. For one GPU.

Not run yet on the real images; 11,788 photographs, downloaded by TFDS.

  python -m deeprank_jax.cli.prepare --config=configs/cub200.py
  python -m deeprank_jax.main --config=configs/cub200.py
"""

import ml_collections

from configs import cars196


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration."""
    config = cars196.get_config()
    config.data.name = "caltech_birds2011"
    return config
