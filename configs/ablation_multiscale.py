r"""Ablation of the low-resolution path: multi-scale against its trunk alone, on emoji.

Both arms train the same small trunk from scratch for the same number of steps on the
same draws, each with the best learning rate and margin of the same grid, judged on
validation with another seed; five further seeds are then compared.

Expected: similarity precision .837 against .844 of the trunk alone, Recall@1 .469
against .503; 22 minutes on two cores. On validation the settings of the grid differ by
.009 at most; the best has the learning rate 3e-3 in the first arm and 1e-3 in the
second, which may be a part of the difference.

  deeprank prepare --config=emoji
  deeprank ablation --config=ablation_multiscale --jobs=2

One arm alone:

  deeprank train --config=ablation_multiscale \
      --config.model.paths="()" --workdir=runs/single_scale
"""

import ml_collections

from deeprank_jax.configs import ablation_sampling

# Arms of `deeprank ablation`.
ARMS = {"multi-scale": {}, "single-scale": {"model.paths": "()"}}
GRID = ablation_sampling.GRID
TUNING_SEED = ablation_sampling.TUNING_SEED
SEEDS = ablation_sampling.SEEDS
METRICS = ablation_sampling.METRICS


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the first arm."""
    config = ablation_sampling.get_config()
    config.num_steps = 1000
    config.eval_every = 250
    config.checkpoint_every = 250
    return config
