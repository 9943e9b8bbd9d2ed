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


def create(**change):
    options = dict(
        trunk=dict(name="convnet", widths=(4, 8)),
        image_size=17,
        embedding_dim=5,
        paths=(dict(subsample=2, kernel=3, stride=2, width=4, pool=3, pool_stride=2),),
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


def test_normalizing_zero_has_a_finite_gradient():
    value, grad = jax.value_and_grad(lambda x: layers.l2_normalize(x).sum())(
        jnp.zeros(4)
    )
    assert value == 0.0
    assert jnp.isfinite(grad).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(trunk=dict(name="resnet")), "No trunk is named 'resnet'"),
        (dict(trunk=dict(name="resnet50"), image_size=31), "31 is too small"),
        (dict(trunk=dict(name="resnet50", depth=3), image_size=32), "'depth'"),
        (dict(trunk=dict(name="alexnet", widths=(4,) * 4), image_size=63), "5 numbers"),
        (dict(trunk=dict(name="vgg16", dropout_keep=0.0), image_size=32), "at most 1"),
        (dict(trunk=dict(name="alexnet", dropout_keep=1.5), image_size=63), "above 0"),
        (dict(dtype="float16"), "dtype is 'float16'"),
        (dict(batch_norm="none"), "batch_norm is 'none'"),
    ],
)
def test_what_cannot_be_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        create(**change)
