r"""The demo: similarity of emoji, trained on 539 and tested on 620 others.

Each emoji is drawn by seven vendors; a query should find its other six designs.
Prepared from installed packages, trained from scratch, for two CPU cores.

Network, images and steps are those of `configs/emoji_paper.py`. Each image of a batch
is compared with all others and with those of the last eight batches.

Expected: test Recall@1 .766 (pixels .422, untrained .398), MAP@R .543, similarity
precision .897; 9 minutes on two CPU cores.

  deeprank prepare --config=emoji
  deeprank train --config=emoji
"""

import ml_collections

from deeprank_jax.configs import emoji_paper


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration."""
    config = emoji_paper.get_config()
    # 192 images a step, as 64 triplets have: four designs of each of 48 emoji.
    config.batch_size = 48
    config.sampler.positives_per_anchor = 3
    config.sampler.negatives_per_anchor = 0
    config.sampler.min_positive_relevance = 0.5
    # The first term tells emoji apart; the second orders those of the same subcategory
    # and category, too.
    config.loss = dict(
        name="weighted_sum",
        terms=dict(
            multi_similarity=dict(memory_size=1536),
            rank_n_contrast=dict(weight=0.4, relevance_power=0.75),
        ),
    )
    # Turned or in other colours, an emoji is one more to learn from.
    config.data.augment.update(quarter_turns=0.6, swap_colors=0.5)
    config.model.embed_shift = 2
    config.model.whitening_power = 0.4
    config.optimizer.learning_rate = 6e-3
    config.optimizer.ema_decay = 0.99
    config.schedule.warmup_steps = 250
    return config
