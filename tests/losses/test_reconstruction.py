"""Loss of reconstructed images by hand."""

from helpers.ranking_losses import AT_START
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeprank_jax import losses
from deeprank_jax.losses.reconstruction import side_of, target_images
from deeprank_jax.models import layers


def create():
    return losses.create_loss({"name": "reconstruction"}, axis_name=None)


def filter_weights(size, side):
    """Returns weights `[side, size]` of a linear filter as wide as it shrinks."""
    factor = size / side
    places = (np.arange(side) + 0.5) * factor - 0.5
    distances = np.abs(np.arange(size) - places[:, None]) / factor
    weights = np.maximum(1 - distances, 0)
    return weights / weights.sum(axis=1, keepdims=True)


def by_hand(outputs, images):
    """Returns the losses `[B]`, number by number in float64."""
    size, side = images.shape[2], int(np.sqrt(outputs.shape[-1] / 3))
    weights = filter_weights(size, side)
    targets = np.einsum("yi,xj,bnijc->bnyxc", weights, weights, images / 255.0)
    gaps = np.float64(outputs).reshape(targets.shape) - targets
    return np.mean(np.square(gaps), axis=(1, 2, 3, 4)), gaps


@pytest.mark.parametrize(("size", "side"), [(8, 8), (8, 4), (9, 5), (12, 3), (7, 1)])
@pytest.mark.parametrize("num_views", [1, 2])
def test_value_and_gradient_are_those_of_the_formula(size, side, num_views):
    rng = np.random.default_rng(size + side)
    shape = (4, num_views, size, size, 3)
    images = rng.integers(0, 256, shape).astype(np.uint8)
    outputs = rng.normal(size=(4, num_views, 3 * side**2)).astype(np.float32)
    expected, gaps = by_hand(outputs, images)
    batch = {"images": jnp.asarray(images)}
    loss = lambda x: create()(x, batch, **AT_START)
    np.testing.assert_allclose(loss(outputs), expected, rtol=1e-5)
    gradient = jax.grad(lambda x: loss(x).sum())(jnp.asarray(outputs))
    expected = 2 * gaps / gaps[0].size
    np.testing.assert_allclose(
        gradient, expected.reshape(outputs.shape), rtol=1e-4, atol=1e-6
    )


def test_targets_are_those_of_the_networks_subsampling():
    images = np.random.default_rng(0).integers(0, 256, (2, 15, 15, 3)).astype(np.uint8)
    subsampled = layers.subsample(images.astype(np.float32), 2) / 255
    np.testing.assert_allclose(target_images(images, 8), subsampled, atol=1e-6)


def test_it_is_0_for_the_image_itself():
    images = np.random.default_rng(0).integers(0, 256, (3, 1, 6, 6, 3)).astype(np.uint8)
    outputs = (images / np.float32(255)).reshape(3, 1, -1)
    values = create()(outputs, {"images": images}, **AT_START)
    np.testing.assert_allclose(values, 0, atol=1e-12)


@pytest.mark.parametrize("num", [1, 6, 64])
def test_outputs_of_no_square_image_are_refused(num):
    with pytest.raises(ValueError, match=f"outputs of {num} numbers .* no decoder"):
        side_of(num)
