r"""Handwritten digits by several attributes at once: digit, parity and size.

1,797 handwritten digits of scikit-learn, each at 14, 20 and 28 of 32 pixels, at a
random place. A head for each attribute trains the features of one trunk, so that the
cosine of two images rises with all that they have in common. Parity follows from digit.
The splits share no handwritten digit, but the ten classes, which is what attributes are
for; an image's two other sizes are in its gallery.

Expected: test mean cosine .493 of the same digit, .402 of digits that differ by 2 and
.372 of another parity; .458 of the same size and .364 of another; Recall@1 .922 (pixels
.669, untrained .646); 95 s of CPU time.

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
    config.num_steps = 200
    config.eval_every = 100
    config.checkpoint_every = 100
    evaluators = config.evaluation.evaluators.to_dict()
    evaluators["shared_attributes"] = dict(
        names=("digit", "parity", "size"), steps=dict(digit=2)
    )
    config.evaluation.evaluators = evaluators
    return config
