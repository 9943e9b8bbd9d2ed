from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeprank_jax import models
from deeprank_jax.errors import ConfigError
from deeprank_jax.models import layers
from deeprank_jax.models.multiscale import LowResolutionPath


@pytest.mark.parametrize(
    ("subsample", "pool", "pool_stride", "sizes"),
    [(4, 3, 4, (57, 15, 4)), (8, 7, 2, (29, 8, 4))],
)
def test_paths_have_the_papers_sizes(subsample, pool, pool_stride, sizes):
    path = LowResolutionPath(
        image_size=225, subsample=subsample, kernel=8, stride=4, width=96,
        pool=pool, pool_stride=pool_stride, dtype=jnp.float32, rngs=nnx.Rngs(0),
    )  # fmt: skip
    images = jnp.zeros((1, 225, 225, 3))
    small = layers.subsample(images, subsample)
    convolved = path.conv(small)
    assert (small.shape[1], convolved.shape[1]) == sizes[:2]
    assert path(images).shape == (1, sizes[2] ** 2 * 96) == (1, path.num_features)


PATH = dict(subsample=2, kernel=3, stride=2, width=4, pool=3, pool_stride=2)


def create(**change):
    options = dict(
        trunk=dict(name="convnet", widths=(4, 8)),
        image_size=17,
        embedding_dim=5,
        paths=(PATH,),
    )
    return models.create_model(**{**options, **change})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("num_paths", [0, 1])
def test_embeddings_are_unit_vectors(dtype, num_paths):
    change = {"dtype": dtype} if num_paths else {"dtype": dtype, "paths": ()}
    images = np.random.default_rng(0).integers(0, 256, (3, 17, 17, 3), np.uint8)
    embeddings = create(**change)(images)
    assert embeddings.dtype == jnp.float32
    np.testing.assert_allclose(jnp.linalg.norm(embeddings, axis=1), 1.0, rtol=1e-5)
    # Half of what a unit vector holds is negative: nothing is clipped to (0, 1).
    assert (embeddings < 0).any()


def test_paths_see_more_than_the_trunk_alone():
    with_path, without = create(), create(paths=())
    difference = with_path.embedding.in_features - without.embedding.in_features
    assert difference == with_path.paths[0].num_features > 0


def test_the_parts_are_normalized_and_joined_as_in_figure_3():
    model = create(paths=(PATH, {**PATH, "subsample": 4, "width": 3}))
    rng = np.random.default_rng(0)
    model.embedding.bias[...] = rng.normal(0, 0.2, 5)
    images = rng.integers(0, 256, (3, 17, 17, 3), np.uint8)
    pixels = (images - np.float32(127.5)) / 127.5
    length = lambda x: np.linalg.norm(x, axis=1, keepdims=True)
    unit = lambda x: x / length(x)
    trunk, *shallow = (np.asarray(part(pixels)) for part in (model.trunk, *model.paths))
    # None is of unit length by itself, and each path weighs what it weighs.
    assert all(np.abs(length(x) - 1.0).min() > 0.1 for x in (trunk, *shallow))
    assert np.abs(length(shallow[0]) / length(shallow[1]) - 1.0).min() > 0.1
    joined = np.concatenate([unit(trunk), unit(np.concatenate(shallow, 1))], axis=1)
    kernel, bias = (
        np.asarray(x) for x in (model.embedding.kernel, model.embedding.bias)
    )
    mapped = joined @ kernel + bias
    assert np.abs(length(mapped) - 1.0).min() > 0.1
    np.testing.assert_allclose(model(images), unit(mapped), atol=1e-5)


def test_normalizing_zero_has_a_finite_gradient():
    value, grad = jax.value_and_grad(lambda x: layers.l2_normalize(x).sum())(
        jnp.zeros(4)
    )
    assert value == 0.0
    assert jnp.isfinite(grad).all()


def convnet(**options):
    return dict(trunk=dict(name="convnet", **options))


def alexnet(**options):
    return dict(trunk=dict(name="alexnet", widths=(4,) * 5, **options), image_size=63)


def path(**change):
    """Returns a second path with other options; None leaves one out."""
    changed = {name: x for name, x in {**PATH, **change}.items() if x is not None}
    return dict(paths=(PATH, changed))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            dict(trunk=dict(name="resnet")),
            r"config\.model\.trunk\.name='resnet' is not known .*'resnet50'\?",
        ),
        (
            dict(trunk=dict(name="resnet50"), image_size=31),
            r"config\.data\.image_size must be at least 32 .* resnet50, got 31",
        ),
        (
            dict(trunk=dict(name="resnet50", widths=(3,)), image_size=32),
            r"trunk\.widths is not an option of 'resnet50'; its options are: pooling",
        ),
        (convnet(norm=1), r"trunk\.norm is not an option of 'convnet'; .*: widths, "),
        (dict(trunk=dict(name="alexnet", widths=(4,) * 4), image_size=63), "5 numbers"),
        (dict(trunk=dict(name="vgg16", dropout_keep=0.0), image_size=32), "at most 1"),
        (
            alexnet(dropout_keep=1.5),
            r"config\.model\.trunk\.dropout_keep must be above",
        ),
        (dict(trunk=dict(widths=(4,))), r"trunk has no name; choose one of .*vgg16"),
        (convnet(widths=()), r"trunk\.widths must hold .* at least one stage"),
        (convnet(widths=(4, 0)), r"trunk\.widths must be whole .*, got \(4, 0\)"),
        (convnet(stem_stride=0), r"trunk\.stem_stride must be a whole .*, got 0"),
        (convnet(stem_kernel=1.5), r"trunk\.stem_kernel=1\.5 is not of the type int"),
        (convnet(stem_kernel="a"), r"trunk\.stem_kernel='a' is not of the type int"),
        (alexnet(groups=0), r"config\.model\.trunk\.groups must be a whole number"),
        (alexnet(groups=3), r"groups must divide each of widths=\(4, 4, 4, 4, 4\)"),
        (alexnet(fc_dim=0), r"trunk\.fc_dim must be"),
        (dict(trunk=dict(name="vgg16", fc_dim=0), image_size=32), "trunk.fc_dim must"),
        (
            path(kernal=8),
            r"config\.model\.paths\[1\] has 'kernal'; its options are subsample, ",
        ),
        (path(kernel=None), r"model\.paths\[1\] lacks 'kernel'; its options are sub"),
        (path(subsample=0), r"model\.paths\[1\]\.subsample must be a .*, got 0"),
        (path(stride=0), r"paths\[1\]\.stride must be"),
        (path(width=0), r"paths\[1\]\.width must be"),
        (path(pool=0), r"paths\[1\]\.pool must be"),
        (path(pool_stride=-2), r"paths\[1\]\.pool_stride must be .*, got -2"),
        (dict(whitening_power=1.5), r"config\.model\.whitening_power must be .* 1\.5"),
        (dict(embed_shift=17), r"config\.model\.embed_shift must be .* 17 pixels"),
        (dict(embed_prefix=6), r"config\.model\.embed_prefix must be from 0 .* got 6"),
        (dict(embed_prefix=-1), r"config\.model\.embed_prefix must be from 0 .*, got"),
        (dict(dtype="float16"), r"config\.model\.dtype must .*, got 'float16'"),
        (dict(batch_norm="none"), r"config\.model\.batch_norm must .*, got 'none'"),
    ],
)
def test_what_cannot_be_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        create(**change)


class Means:
    """A trunk of one's own: the mean of each channel."""

    num_features = 3
    pixel_mean = pixel_scale = 127.5

    def __init__(self, *, power=1, image_size):
        self.power = power

    def __call__(self, images, key=None):
        return jnp.mean(images**self.power, axis=(1, 2))


def test_a_trunk_of_ones_own(monkeypatch):
    monkeypatch.setattr(models.TRUNKS, "_kinds", dict(models.TRUNKS))
    trunk = type("Means", (Means, nnx.Module), {})
    models.register_trunk("means")(trunk)
    model = create(trunk=dict(name="means", power=2))
    images = np.random.default_rng(0).integers(0, 256, (3, 17, 17, 3), np.uint8)
    expected = np.square(images / np.float32(127.5) - 1).mean((1, 2))
    np.testing.assert_allclose(model.features(images), expected, rtol=1e-5)
    assert model(images).shape == (3, 5)
    with pytest.raises(ConfigError, match=r"'means'; its options are: power\."):
        create(trunk=dict(name="means", widths=(4,)))
    with pytest.raises(ConfigError, match="'resnet50' is a built-in name"):
        models.register_trunk("resnet50")(trunk)
    del Means.pixel_mean
    with pytest.raises(ConfigError, match="'means' has no attribute pixel_mean"):
        create(trunk=dict(name="means"))


@pytest.mark.parametrize("pixels", [1, 3])
def test_shifted_images_are_those_of_a_loop(pixels):
    images = np.random.default_rng(0).integers(0, 256, (2, 6, 5, 3)).astype(np.uint8)
    views = layers.shift_four_ways(jnp.asarray(images), pixels)
    rows, columns = np.arange(6), np.arange(5)
    for view, (y, x) in zip(
        views, ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)), strict=True
    ):
        from_rows = np.clip(rows + y * pixels, 0, 5)
        from_columns = np.clip(columns + x * pixels, 0, 4)
        np.testing.assert_array_equal(view, images[:, from_rows][:, :, from_columns])


@pytest.mark.parametrize("num", [1, 3, 5])
def test_the_first_numbers_of_an_embedding_are_kept(num):
    images = np.random.default_rng(0).integers(0, 256, (3, 17, 17, 3)).astype(np.uint8)
    options = dict(embed_shift=1, whitening_power=0.5)
    network, shortened = create(**options), create(**options, embed_prefix=num)
    for model in (network, shortened):
        model.eval()
        model.whitening.matrix[...] = jnp.diag(jnp.arange(1.0, 6.0))
    whole = np.asarray(network.embed(images))
    expected = whole[:, :num] / np.linalg.norm(whole[:, :num], axis=1, keepdims=True)
    np.testing.assert_allclose(shortened.embed(images), expected, atol=1e-6)
    # Training and whitening see all numbers.
    np.testing.assert_array_equal(shortened(images), network(images))
    np.testing.assert_array_equal(
        shortened.embed_once(images), network.embed_once(images)
    )


@pytest.mark.parametrize(("shift", "flip"), [(2, False), (0, True), (2, True)])
def test_an_embedding_over_views_is_the_direction_of_their_mean(shift, flip):
    images = np.random.default_rng(0).integers(0, 256, (3, 17, 17, 3)).astype(np.uint8)
    network, averaging = create(), create(embed_shift=shift, embed_flip=flip)
    network.eval()
    averaging.eval()
    views = list(
        layers.shift_four_ways(jnp.asarray(images), shift) if shift else [images]
    )
    if flip:
        views += [view[:, :, ::-1] for view in views]
    mean = np.mean([network.embed(view) for view in views], axis=0)
    expected = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(averaging.embed(images), expected, atol=1e-5)
    assert np.abs(expected - network.embed(images)).max() > 1e-3
    # In training an image is embedded once.
    np.testing.assert_allclose(averaging(images), network(images), atol=1e-6)


def test_without_a_linear_map_an_embedding_is_the_features():
    images = np.random.default_rng(0).integers(0, 256, (3, 17, 17, 3)).astype(np.uint8)
    network = create(embedding_dim=None, paths=())
    network.eval()
    features = np.asarray(network.features(images))
    expected = features / np.linalg.norm(features, axis=1, keepdims=True)
    assert expected.shape == (3, network.trunk.num_features)
    np.testing.assert_allclose(network.embed(images), expected, atol=1e-6)
    np.testing.assert_allclose(network(images), expected, atol=1e-6)


OTHER = dict(trunk=dict(name="convnet", widths=(3, 6)), embedding_dim=4)


def test_an_ensemble_puts_the_embeddings_of_its_networks_side_by_side():
    images = np.random.default_rng(0).integers(0, 256, (3, 17, 17, 3)).astype(np.uint8)
    network = create(ensemble=(OTHER, dict(OTHER, subsample=2, paths=(PATH,))))
    alone = create()
    for x in (network, alone):
        x.eval()
    smaller = layers.subsample(jnp.asarray(images, jnp.float32), 2)
    parts = [alone(images), network.others[0](images), network.others[1](smaller)]
    expected = np.concatenate(parts, axis=1) / np.sqrt(3)
    assert expected.shape == (3, network.embedding_dim) == (3, 5 + 4 + 4)
    np.testing.assert_allclose(network(images), expected, atol=1e-6)
    np.testing.assert_allclose(network.embed(images), expected, atol=1e-6)
    assert len(network.others[1].paths) == 1


def test_networks_of_an_ensemble_start_from_different_parameters():
    network = create(ensemble=(OTHER, OTHER))
    first, second = (nnx.state(x, nnx.Param) for x in network.others)
    kernels = [x["trunk"]["convs"][0]["kernel"][...] for x in (first, second)]
    assert np.abs(kernels[0] - kernels[1]).max() > 0.01


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 3}, r"ensemble\[0\] has 'width'; its options are trunk, embed"),
        (
            {"embedding_dim": 0},
            r"ensemble\[0\]\.embedding_dim must be a whole .* got 0",
        ),
        ({"subsample": 1.5}, r"ensemble\[0\]\.subsample must be .*, got 1\.5"),
        ({"trunk": "convnet"}, r"ensemble\[0\]\.trunk='convnet' must be a dict"),
        ({"trunk": {"name": "convnett"}}, r"ensemble\[0\]\.trunk.*'convnett' is not "),
        (
            {"trunk": dict(name="vgg16"), "subsample": 2},
            r"config\.data\.image_size, divided by .*ensemble\[0\]\.subsample, .*32.*9",
        ),
        ({"paths": ({},)}, r"ensemble\[0\]\.paths\[0\] lacks 'subsample'"),
        ({"paths": (1,)}, r"ensemble\[0\]\.paths\[0\]=1 must be a dict"),
    ],
)
def test_what_a_network_of_an_ensemble_cannot_be_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        create(ensemble=(OTHER | change,))


def test_a_network_of_an_ensemble_needs_a_trunk_and_a_length():
    with pytest.raises(ConfigError, match=r"ensemble\[0\] lacks 'embedding_dim'"):
        create(ensemble=({"trunk": OTHER["trunk"]},))
