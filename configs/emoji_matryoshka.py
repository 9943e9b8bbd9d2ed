r"""The demo with embeddings that can be shortened.

The loss is that of `configs/emoji.py`, of all 512 numbers of an embedding and of the
first 64 and 16. Results have Recall@1 and MAP@R by each length.

Expected: test Recall@1 .757 by all numbers, .742 by 64, .706 by 32, .630 by 16, MAP@R
.533, .509, .460, .388; 10 minutes on two CPU cores.

  deeprank prepare --config=emoji
  deeprank train --config=emoji_matryoshka
  deeprank export --workdir=runs/emoji_matryoshka --embed_prefix=64 --out=short
"""

import ml_collections

from deeprank_jax.configs import emoji


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration."""
    config = emoji.get_config()
    terms = config.loss.terms.to_dict()
    config.loss = dict(name="matryoshka", dims=(16, 64), terms=terms)
    evaluators = config.evaluation.evaluators.to_dict()
    evaluators["prefixes"] = dict(dims=(16, 32, 64, 128, 256))
    config.evaluation.evaluators = evaluators
    return config
