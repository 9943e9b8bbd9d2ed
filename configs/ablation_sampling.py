r"""Ablation of importance sampling: the paper's law against uniform draws, on emoji.

Both arms train the same small network from scratch for the same number of steps and
triplets with the paper's loss, each with the best learning rate and margin of the same
grid, judged on validation with another seed; five further seeds are then compared.

Expected: similarity precision .852 against .769, score-at-30 10,409 against 6,085;
79 minutes on one CPU core. On uniformly drawn evaluation triplets precision is .632
against .708.

  deeprank ablation --config=ablation_sampling
  deeprank rejudge --config=ablation_sampling --mode=uniform

One arm alone:

  deeprank train --config=ablation_sampling \
      --config.sampler.mode=uniform --workdir=runs/uniform
"""

import ml_collections

from deeprank_jax.configs import emoji_paper

# Arms of `deeprank ablation`.
ARMS = {
    "importance": {"sampler.mode": "importance"},
    "uniform": {"sampler.mode": "uniform"},
}
GRID = {"optimizer.learning_rate": (1e-3, 3e-3), "loss.margin": (0.2, 0.6)}
TUNING_SEED = 100
SEEDS = (0, 1, 2, 3, 4)
METRICS = (
    "triplets/precision",
    "triplets/score_at_30",
    "retrieval/recall@1",
    "retrieval/map@r",
    "retrieval/ndcg@10",
)


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration of the first arm."""
    config = emoji_paper.get_config()
    config.num_steps = 2000
    config.batch_size = 32
    config.data.image_size = 32
    config.data.augment.update(shift_pixels=1, flip=True, color_jitter=0.1)
    config.model.trunk = dict(name="convnet", widths=(32, 64, 128))
    config.model.embedding_dim = 256
    config.model.paths = (
        dict(subsample=2, kernel=8, stride=4, width=32, pool=3, pool_stride=2),
    )
    # The samplers are compared, so nothing is mined in the batch.
    config.loss.miner = dict(name="sampled")
    config.loss.symmetric = False
    config.eval_every = 500
    config.checkpoint_every = 500
    config.evaluation.best_metric = "triplets/precision"
    return config
