r"""The demo with binary codes: the signs of 64 numbers, 8 bytes an image.

The loss is that of `configs/emoji.py`, of smooth codes in place of embeddings. Results
have Recall@1 and MAP@R by Hamming distance beside those by the numbers.

Expected: test Recall@1 .582 by Hamming distance, .646 by the query's numbers and .690
by those of both; half an hour on two busy CPU cores. Iterative quantization of the 512
numbers of `configs/emoji.py` to 64 bits has .615 and .690.

  deeprank prepare --config=emoji
  deeprank train --config=emoji_codes
"""

import ml_collections

from deeprank_jax.configs import emoji


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration."""
    config = emoji.get_config()
    config.loss = dict(name="hashing", terms=config.loss.terms.to_dict(), sharpness=2.0)
    # A bit for each number, at the start of training 1 for about half of the images.
    config.model.embedding_dim = 64
    config.model.embedding_norm = True
    # It would turn the axes, whose signs the loss has learned.
    config.model.whitening_power = 0.0
    evaluators = config.evaluation.evaluators.to_dict()
    evaluators["codes"] = dict()
    config.evaluation.evaluators = evaluators
    config.evaluation.best_metric = "codes/map@r"
    return config
