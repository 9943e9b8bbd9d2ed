r"""Ablation of the low-resolution path: multi-scale against its trunk alone, on photos.

Arms, grid and seeds are those of `ablation_multiscale`.

Expected: similarity precision .888 against .885 of the trunk alone, Recall@1 .704
against .684, neither of them surely better; 28 minutes on two cores.

  deeprank prepare --config=photo_views
  deeprank ablation --config=ablation_multiscale_photos --jobs=2
"""

import ml_collections

from deeprank_jax.configs import ablation_multiscale

# Arms of `deeprank ablation`.
ARMS = ablation_multiscale.ARMS
GRID = ablation_multiscale.GRID
TUNING_SEED = ablation_multiscale.TUNING_SEED
SEEDS = ablation_multiscale.SEEDS
METRICS = ablation_multiscale.METRICS


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the first arm."""
    config = ablation_multiscale.get_config()
    config.data.source = dict(name="photo_views")
    return config
