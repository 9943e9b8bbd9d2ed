r"""Your own images, listed in a CSV or Parquet file: `path,level_1,...,level_n`.

Paths are relative to the file's folder, levels go from coarse to fine, and the last
is the class. Network, training and splits are those of `configs/folder.py`.

  deeprank train --config=manifest \
      --config.data.dir=IMAGES.csv --workdir=runs/mine
"""

import ml_collections

from deeprank_jax.configs import folder


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration."""
    config = folder.get_config()
    config.data.source.name = "manifest"
    return config
