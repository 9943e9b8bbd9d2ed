r"""Your own images without labels: all that are in a folder, and in folders in it.

Training begins with the features of EfficientNet-Lite0, from ImageNet, and brings two
views of an image, each changed on its own, closer than all others (SimCLR). Validation
and test ask for an image by a changed copy of it; the checkpoint that does it best is
the result, which may be the network before training. That says nothing of which images
people find similar: with labels, use `configs/folder.py`, and first try
`--model=efficientnet_lite0` without any training.

Expected, on 385 animal emoji in one folder: changed copies of test images are found in
.838 of cases (.818 before training); another design of the same animal, which a network
without training at 224 pixels finds in .678, in .647; 6 minutes on a busy CPU core.
Views that are crops of 30 % of the area or more, with some colours swapped, gave .935
and .496.

  deeprank train --config=unlabelled \
      --config.data.dir=DIR --workdir=runs/mine
"""

import ml_collections

from deeprank_jax.configs import folder


def get_config() -> ml_collections.ConfigDict:
    """Returns the configuration."""
    config = folder.get_config()
    config.task = dict(name="self_supervised")
    config.loss = dict(name="nt_xent")
    config.data.source = dict(name="unlabelled", test_share=0.2, validation_share=0.1)
    # No crops: views without a part of the object teach that parts do not matter.
    config.data.augment.update(
        shift_pixels=4,
        zoom=0.1,
        rotate_degrees=5.0,
        flip=False,
        color_jitter=0.4,
        grayscale=0.3,
        blur=4.0,
        cutout=0.4,
    )
    config.evaluation.best_metric = "retrieval/recall@1"
    return config
