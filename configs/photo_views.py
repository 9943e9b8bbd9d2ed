r"""The demo's recipe on photographs: places of eight train, those of five others test.

Each place is seen six times: nearer or farther, shifted, turned and in another light; a
query should find its five other views. Prepared from installed packages, trained from
scratch, for two CPU cores.

Expected: test Recall@1 .869 (pixels .460, untrained .577), MAP@R .619, similarity
precision .926; 9 minutes on two CPU cores.

  deeprank prepare --config=photo_views
  deeprank train --config=photo_views
"""

import ml_collections

from deeprank_jax.configs import emoji


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration."""
    config = emoji.get_config()
    config.data.source = dict(name="photo_views")
    return config
