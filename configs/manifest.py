r"""Your own images, listed in a CSV or Parquet file: `path,level_1,...,level_n`.

Paths are relative to the file's folder, levels go from coarse to fine, and the last
is the class. Split and options are those of `configs/folder.py`.

  python -m deeprank_jax.main --config=configs/manifest.py \
      --config.data.dir=IMAGES.csv --workdir=runs/mine
"""

import ml_collections

from configs import base


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration."""
    config = base.get_config()
    config.data.name = "manifest"
    return config
