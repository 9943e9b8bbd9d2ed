"""GeM by its formula, its gradients, its rate, and within a trunk."""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from deeprank_jax import models
from deeprank_jax.errors import ConfigError
from deeprank_jax.models.pooling import GeM, create_pooling
from deeprank_jax.models.pretrained import weights
from deeprank_jax.training import optimizers

LITE0 = dict(name="efficientnet_lite0")


def gem_by_hand(features, power):
    """Returns the generalised means of [B, H, W, C], in float64."""
    raised = np.maximum(features.astype(np.float64), 1e-6) ** power
    return raised.mean(axis=(1, 2)) ** (1 / power)


def create_features(low=-1.0, high=4.0):
    return np.random.default_rng(0).uniform(low, high, (3, 4, 5, 2)).astype(np.float32)


def create_gem(power):
    gem = GeM()
    gem.power[...] = jnp.float32(power)
    return gem


@pytest.mark.parametrize("power", [0.5, 1.0, 3.0, 20.0])
def test_values_are_those_by_hand(power):
    features = create_features()
    values = create_gem(power)(features)
    np.testing.assert_allclose(values, gem_by_hand(features, power), rtol=1e-5)


def test_its_ends_are_the_mean_and_the_maximum():
    features = create_features(low=0.5)
    mean = create_pooling("mean")(features)
    np.testing.assert_allclose(create_gem(1.0)(features), mean, rtol=1e-5)
    largest = features.max(axis=(1, 2))
    np.testing.assert_allclose(create_gem(500.0)(features), largest, rtol=0.01)


def test_gradients_are_those_by_hand():
    features = create_features(low=0.2)
    graphdef, state = nnx.split(GeM())
    pool = lambda state, x: nnx.merge(graphdef, state)(x).sum()
    of_power, of_features = jax.grad(pool, argnums=(0, 1))(state, features)
    by_hand = lambda x, p: gem_by_hand(x, p).sum()
    exact = features.astype(np.float64)
    expected = (by_hand(exact, 3 + 1e-6) - by_hand(exact, 3 - 1e-6)) / 2e-6
    np.testing.assert_allclose(of_power["power"][...], expected, rtol=1e-4)
    for index in ((0, 0, 0, 0), (1, 3, 2, 1), (2, 1, 4, 0)):
        step = np.zeros_like(exact)
        step[index] = 1e-6
        expected = (by_hand(exact + step, 3.0) - by_hand(exact - step, 3.0)) / 2e-6
        np.testing.assert_allclose(of_features[index], expected, rtol=1e-4)


def test_nothing_overflows_and_zeros_have_finite_gradients():
    pool = create_gem(3.0)
    assert np.all(np.isfinite(pool(np.full((1, 2, 2, 1), 3e38, np.float32))))
    zeros = np.zeros((1, 2, 2, 1), np.float32)
    assert np.all(np.isfinite(jax.grad(lambda x: pool(x).sum())(zeros)))


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_the_power_learns_at_ten_times_the_rate_without_decay(name):
    model = models.create_abstract(
        lambda: models.create_model(
            trunk={**LITE0, "pooling": "gem"}, image_size=32, embedding_dim=None
        )
    )
    shapes = nnx.state(model, nnx.Param)
    params = jax.tree.map(lambda x: jnp.full(x.shape, 0.5), shapes)
    options = dict(
        name=name, momentum=0.0, nesterov=False, b1=0.9, b2=0.999,
        l2_penalty=0.5, decoupled_weight_decay=0.5, clip_norm=0.0, trunk_scale=1.0,
    )  # fmt: skip
    steps = {}
    for has_gem in (False, True):
        tx = optimizers.create_optimizer(options, lambda _: 0.1, has_gem=has_gem)
        gradients = jax.tree.map(jnp.ones_like, params)
        updates, _ = tx.update(gradients, tx.init(params), params)
        steps[has_gem] = nnx.to_pure_dict(updates)["trunk"]
    powers = [steps[x]["pooling"]["power"] for x in (False, True)]
    np.testing.assert_allclose(powers, [-0.1, -1.0], rtol=1e-5)
    others = [steps[x]["stem"]["kernel"] for x in (False, True)]
    np.testing.assert_array_equal(*others)
    assert optax.tree.norm(others[0]) > 0


def test_a_trunk_pools_its_last_map():
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    networks = {
        pooling: models.create_classifier(
            trunk={**LITE0, "pooling": pooling}, image_size=64, num_classes=2
        )
        for pooling in ("mean", "gem")
    }
    for network in networks.values():
        network.eval()
    mean = networks["mean"].features(images)
    gem = networks["gem"]
    assert np.all(gem.features(images) >= mean - 1e-5)
    gem.trunk.pooling.power[...] = jnp.float32(1.0)
    np.testing.assert_allclose(gem.features(images), mean, rtol=1e-4, atol=1e-5)


def test_published_weights_leave_the_power_as_it_is():
    trunk = {**LITE0, "pooling": "gem"}
    model = models.create_classifier(trunk=trunk, image_size=64, num_classes=2)
    report = weights.load_weights(model, weights="package", trunk=LITE0["name"])
    assert "trunk/pooling/power" in report.unchanged
    assert model.trunk.pooling.power[...] == 3.0


@pytest.mark.parametrize("name", ["resnet50", "efficientnet_lite0"])
def test_an_unknown_pooling_is_refused(name):
    message = r"config\.model\.trunk\.pooling must be one of mean, gem, got 'max'"
    with pytest.raises(ConfigError, match=message):
        models.create_model(
            trunk=dict(name=name, pooling="max"), image_size=64, embedding_dim=8
        )
