"""Every trunk has the shapes and as many parameters as its authors say."""

import inspect

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeprank_jax import models
from deeprank_jax.models import layers

ONE_GPU = dict(
    name="alexnet",
    widths=(64, 192, 384, 256, 256),
    groups=1,
    local_response_norm=False,
)
# With 1,000 classes: AlexNet as Caffe has it, the others as torchvision and the
# published EfficientNet-Lite weights.
PARAMETERS = [
    (dict(name="alexnet"), 225, 4096, 60_965_224),
    (ONE_GPU, 224, 4096, 61_100_840),
    (dict(name="vgg16"), 224, 4096, 138_357_544),
    (dict(name="resnet50"), 224, 2048, 25_557_032),
    (dict(name="efficientnet_lite0"), 224, 1280, 4_652_008),
    (dict(name="efficientnet_lite1"), 240, 1280, 5_416_680),
    (dict(name="efficientnet_lite2"), 260, 1280, 6_092_072),
    # By hand: 9 * (3 * 4 + 4 * 8) + 2 * (4 + 8), and 15 * 15 * 8 features.
    (dict(name="convnet", widths=(4, 8)), 60, 1800, 420 + 1_801_000),
]


def count(module):
    params = nnx.state(module, nnx.Param)
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(params))


@pytest.mark.parametrize(
    ("trunk", "size", "num_features", "parameters"), PARAMETERS, ids=str
)
def test_number_of_parameters(trunk, size, num_features, parameters):
    model = nnx.eval_shape(
        lambda: models.create_classifier(trunk=trunk, image_size=size, num_classes=1000)
    )
    assert model.trunk.num_features == num_features
    assert count(model) == parameters


def test_every_trunk_is_tested_and_names_its_source():
    assert {trunk["name"] for trunk, *_ in PARAMETERS} == set(models.TRUNKS)
    for kind in models.TRUNKS.values():
        assert "References:" in inspect.getdoc(getattr(kind, "func", kind))


# The sizes of the picture behind each part of a trunk that ends one.
SIZES = [
    (dict(name="alexnet"), 225, [27, 13, 13, 13, 6]),
    (dict(name="vgg16"), 224, [112, 56, 28, 14, 7]),
    (dict(name="resnet50"), 224, [56] * 3 + [28] * 4 + [14] * 6 + [7] * 3),
    (
        dict(name="efficientnet_lite0"),
        224,
        [112] + [56] * 2 + [28] * 2 + [14] * 6 + [7] * 5,
    ),
    (dict(name="convnet"), 48, [24, 12, 6, 3]),
]


@pytest.mark.parametrize(("trunk", "size", "sizes"), SIZES, ids=str)
def test_sizes_on_the_way(trunk, size, sizes, monkeypatch):
    block_sizes = []

    def end_block(x):
        block_sizes.append(x.shape[1])
        return x

    monkeypatch.setattr(layers, "end_block", end_block)

    def run():
        model = models.create_classifier(trunk=trunk, image_size=size, num_classes=7)
        return model(jnp.zeros((2, size, size, 3), jnp.uint8))

    logits = jax.eval_shape(run)
    assert block_sizes == sizes
    assert (logits.shape, logits.dtype) == ((2, 7), jnp.float32)


def create(trunk, size, **change):
    options = dict(trunk=trunk, image_size=size, embedding_dim=6, paths=())
    return models.create_model(**{**options, **change})


def draw(create):
    """Returns the network that a function creates, drawn by one program."""
    return models.draw_missing(models.create_abstract(create), create)


# XLA takes long to compile the step of the deep ones.
SMALL = [
    (dict(name="alexnet", widths=(4, 8, 8, 8, 8), fc_dim=16), 63, "bfloat16"),
    (dict(name="vgg16", fc_dim=16), 32, "float32"),
    pytest.param(dict(name="resnet50"), 32, "float32", marks=pytest.mark.full),
    # tests/training/test_configs.py compiles it, too.
    pytest.param(
        *(dict(name="efficientnet_lite0"), 33, "bfloat16"), marks=pytest.mark.full
    ),
]


@pytest.mark.parametrize(("trunk", "size", "dtype"), SMALL, ids=str)
def test_a_step_reaches_every_parameter(trunk, size, dtype):
    graphdef, params, rest = nnx.split(create(trunk, size, dtype=dtype), nnx.Param, ...)
    images = np.random.default_rng(0).integers(0, 256, (4, size, size, 3), np.uint8)

    @jax.jit
    def grads(params):
        def loss(params):
            model = nnx.merge(graphdef, params, rest, copy=True)
            embeddings = model(images)
            return jnp.sum(embeddings[0] * embeddings[1]), embeddings

        return jax.grad(loss, has_aux=True)(params)

    found, embeddings = grads(params)
    assert embeddings.dtype == jnp.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1.0, rtol=1e-5)
    for path, grad in jax.tree.leaves_with_path(found):
        assert grad.dtype == jnp.float32
        assert np.isfinite(grad).all(), path
        assert np.abs(grad).max() > 0, path


@pytest.mark.parametrize(
    ("name", "least"),
    [("alexnet", 63), ("vgg16", 32), ("resnet50", 32), ("efficientnet_lite0", 32)],
)
def test_images_that_are_too_small_are_refused(name, least):
    trunk = dict(name=name)
    nnx.eval_shape(lambda: create(trunk, least))
    with pytest.raises(ValueError, match=f"image_size must be at least {least} for"):
        nnx.eval_shape(lambda: create(trunk, least - 1))


def test_local_response_norm_by_hand():
    x = np.random.default_rng(0).normal(0, 50, (2, 3, 3, 7))
    expected = np.zeros_like(x)
    for c in range(7):
        near = x[..., max(0, c - 2) : c + 3]
        expected[..., c] = x[..., c] / (2 + 1e-4 * (near**2).sum(-1)) ** 0.75
    assert np.abs(expected / x).std() > 0.01  # The neighbours say something.
    found = layers.local_response_norm(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_alexnet_normalizes_before_its_first_two_poolings(monkeypatch):
    found = []

    def spy(x, *, alpha):
        found.append((x.shape, pytest.approx(alpha)))
        return x

    def run(**options):
        trunk = dict(name="alexnet", **options)
        model = models.create_classifier(trunk=trunk, image_size=225, num_classes=7)
        return model(jnp.zeros((2, 225, 225, 3), jnp.uint8))

    with monkeypatch.context() as patched:
        patched.setattr(layers, "local_response_norm", spy)
        jax.eval_shape(run)
        alpha = 1e-4 * 57.63**2  # The mean deviation of a channel.
        assert found == [((2, 55, 55, 96), alpha), ((2, 27, 27, 256), alpha)]
        jax.eval_shape(lambda: run(local_response_norm=False))
        assert len(found) == 2
    small = dict(name="alexnet", widths=(4,) * 5, groups=1, fc_dim=16)
    images = np.random.default_rng(0).integers(0, 256, (2, 63, 63, 3), np.uint8)
    normalized, plain = (
        create({**small, "local_response_norm": on}, 63)(images) for on in (True, False)
    )
    assert np.abs(normalized - plain).max() > 1e-3


def test_dropout_keeps_the_papers_share():
    x = jnp.ones((100, 100))
    kept = layers.dropout(x, 0.6, jax.random.key(0))
    # Standard deviation .005.
    assert float(jnp.mean(kept > 0)) == pytest.approx(0.6, abs=0.02)
    np.testing.assert_allclose(kept[kept > 0], 1 / 0.6, rtol=1e-6)
    np.testing.assert_array_equal(layers.dropout(x, 0.6, None), x)


def test_a_trunk_drops_only_with_a_key():
    model = create(dict(name="alexnet", widths=(4,) * 5, groups=1, fc_dim=64), 63)
    images = np.random.default_rng(0).integers(0, 256, (2, 63, 63, 3), np.uint8)
    np.testing.assert_array_equal(model(images), model(images))
    one, two = (model(images, jax.random.key(seed)) for seed in (0, 1))
    assert np.abs(one - two).max() > 1e-3
    assert np.abs(one - model(images)).max() > 1e-3


@pytest.mark.parametrize(
    ("trunk", "size"),
    [
        ({"name": "convnet", "widths": (4, 8)}, 16),
        ({"name": "alexnet", "widths": (4, 8, 8, 8, 8), "fc_dim": 16}, 63),
        pytest.param({"name": "vgg16", "fc_dim": 16}, 32, marks=pytest.mark.full),
    ],
    ids=lambda x: x["name"] if isinstance(x, dict) else "",
)
def test_a_compiled_draw_is_the_same_network_to_the_bit(trunk, size):
    create = lambda: models.create_model(
        trunk=trunk, image_size=size, embedding_dim=4, seed=3
    )
    one, other = (nnx.state(x) for x in (create(), draw(create)))
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)
    shapes = nnx.state(models.create_abstract(create))
    assert [x.shape for x in jax.tree.leaves(shapes)] == [
        x.shape for x in jax.tree.leaves(one)
    ]


def test_what_is_given_is_not_drawn():
    create = lambda: models.create_model(
        trunk={"name": "convnet", "widths": (4, 8)}, image_size=16, embedding_dim=4
    )
    drawn, network = draw(create), models.create_abstract(create)
    given = np.full(drawn.embedding.kernel.shape, 2.0, np.float32)
    network.embedding.kernel.set_value(given)
    drawn.embedding.kernel.set_value(given)
    one, other = (nnx.state(x) for x in (drawn, models.draw_missing(network, create)))
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_a_draw_that_is_compiled_quickly_is_the_same_to_the_bit(monkeypatch):
    """With the levels that users have, not the tests."""
    monkeypatch.setenv("XLA_FLAGS", "")
    create = lambda: models.create_model(
        trunk={"name": "convnet", "widths": (4, 8)}, image_size=16, embedding_dim=4
    )
    options = {"xla_backend_optimization_level": 3}
    one = jax.jit(lambda: nnx.state(create()), compiler_options=options)()
    other = nnx.state(draw(create))
    jax.tree.map(np.testing.assert_array_equal, one, other)
