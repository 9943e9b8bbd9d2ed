from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeprank_jax import models
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
        (dict(trunk=dict(name="resnet")), "No trunk is named 'resnet'"),
        (dict(trunk=dict(name="resnet50"), image_size=31), "31 is too small"),
        (dict(trunk=dict(name="resnet50", depth=3), image_size=32), "'depth'"),
        (dict(trunk=dict(name="alexnet", widths=(4,) * 4), image_size=63), "5 numbers"),
        (dict(trunk=dict(name="vgg16", dropout_keep=0.0), image_size=32), "at most 1"),
        (dict(trunk=dict(name="alexnet", dropout_keep=1.5), image_size=63), "above 0"),
        (dict(trunk=dict(widths=(4,))), r"trunk=.* has no name: give it one of .*vgg"),
        (convnet(widths=()), r"trunk\.widths=\(\) must hold .* at least one stage"),
        (convnet(widths=(4, 0)), r"trunk\.widths=\(4, 0\) must be whole numbers of at"),
        (convnet(stem_stride=0), r"trunk\.stem_stride=0 must be a whole number of at"),
        (convnet(stem_kernel=1.5), r"trunk\.stem_kernel=1\.5 must be a whole"),
        (alexnet(groups=0), r"config\.model\.trunk\.groups=0 must be a whole number"),
        (alexnet(groups=3), r"groups=3 must divide each of .*widths=\(4, 4, 4, 4, 4\)"),
        (alexnet(fc_dim=0), r"trunk\.fc_dim=0 must be"),
        (dict(trunk=dict(name="vgg16", fc_dim=0), image_size=32), r"fc_dim=0 must be"),
        (
            path(kernal=8),
            r"model\.paths\[1\] has 'kernal': give it subsample, kernel, ",
        ),
        (path(kernel=None), r"model\.paths\[1\] lacks 'kernel': give it subsample"),
        (path(subsample=0), r"model\.paths\[1\]\.subsample=0 must be a whole number"),
        (path(stride=0), r"paths\[1\]\.stride=0 must be"),
        (path(width=0), r"paths\[1\]\.width=0 must be"),
        (path(pool=0), r"paths\[1\]\.pool=0 must be"),
        (path(pool_stride=-2), r"paths\[1\]\.pool_stride=-2 must be"),
        (dict(dtype="float16"), "dtype is 'float16'"),
        (dict(batch_norm="none"), "batch_norm is 'none'"),
    ],
)
def test_what_cannot_be_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        create(**change)
