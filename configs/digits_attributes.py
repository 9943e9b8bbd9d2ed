r"""Handwritten digits by several attributes at once: digit, parity and size.

deeprank prepare --config=digits_attributes
deeprank train --config=digits_attributes
"""

import ml_collections

from deeprank_jax.configs import base


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration."""
    config = base.get_config()
    config.data.source = dict(name="digits")
    config.data.image_size = 32
    # A mirrored digit is another or none, and a zoom would change the size.
    config.data.augment.update(shift_pixels=2, flip=False)
    config.relevance = dict(
        name="attributes", weights=dict(digit=1.0, parity=0.3, size=0.2)
    )
    config.task = dict(
        name="attributes",
        weights=dict(digit=1.0, parity=0.5, size=0.5),
        held_out_by="original",
    )
    config.loss = dict(name="cross_entropy", label_smoothing=0.1)
    config.model.trunk = dict(name="convnet", widths=(32, 64, 128, 256))
    config.batch_size = 128
    config.num_steps = 600
    config.eval_every = 100
    config.checkpoint_every = 200
    evaluators = config.evaluation.evaluators.to_dict()
    evaluators["shared_attributes"] = dict(
        names=("digit", "parity", "size"), steps=dict(digit=2)
    )
    config.evaluation.evaluators = evaluators
    return config
