r"""The demo's network, trained on 5,000 pairs of emoji instead of their classes.

Half of the pairs show two designs of an emoji, and half two emoji; nothing else is
known in training. Validation and test use the classes, as in `configs/emoji.py`.

Not run yet in full, and its settings are still to be chosen: after 80 steps test
Recall@1 was .419 (pixels .422, untrained .398), and ROC AUC of test pairs .896 (.880,
.808). With the demo's learning rate and a margin of .7 they were .381 and .893 after
150 steps.

  deeprank prepare --config=emoji
  deeprank pairs --config=emoji --out=emoji_pairs.csv
  deeprank train --config=emoji_pairs --config.task.file=emoji_pairs.csv
"""

import ml_collections
from ml_collections import FieldReference

from deeprank_jax.configs import emoji


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration."""
    config = emoji.get_config()
    file = FieldReference("emoji_pairs.csv")
    config.task = dict(name="pairs", file=file)
    # From random weights a smaller margin spreads the embeddings along few directions.
    config.loss = dict(name="pair_contrastive", margin=1.2)
    config.optimizer.learning_rate = 1.5e-3
    config.batch_size = 96  # 192 images a step, as the demo.
    evaluators = config.evaluation.evaluators.to_dict()
    evaluators["pairs"] = dict(file=file.identity())
    config.evaluation.evaluators = evaluators
    return config
