r"""Your own images, one folder per class: DIR/fine/image.jpg or DIR/coarse/fine/....

The leaf folder is the class. Half of the classes are kept for testing, so that the
metrics describe unseen classes; with fewer than two classes for that, images are split
instead, and the report says so.

  deeprank train --config=folder \
      --config.data.dir=DIR --workdir=runs/mine

Set `--config.data.image_size=128` for larger images, and `--config.num_steps` for a
longer run. With coarse folders, give each level a relevance, from coarse to fine:
`--config.relevance.name=hierarchy --config.relevance.levels="(0.02, 1.0)"`.
"""

from deeprank_jax.configs import base
import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration."""
    return base.get_config()
