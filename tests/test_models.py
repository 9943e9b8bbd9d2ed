from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeprank_jax import models
from deeprank_jax.models import cpu_ops, layers
from deeprank_jax.models.multiscale import LowResolutionPath


def random_images(size, batch=2):
    return np.random.default_rng(0).normal(size=(batch, size, size, 3))


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize(("window", "stride"), [(2, 2), (3, 2), (3, 4), (7, 2)])
def test_both_forms_of_max_pooling_agree(size, window, stride):
    x = jnp.asarray(random_images(size), jnp.float32)
    weights = np.random.default_rng(1).normal(size=(2, size, size, 3))

    def value_and_grad(form):
        def total(x):
            pooled = form(x, window=window, stride=stride)
            height, width = pooled.shape[1:3]
            return jnp.sum(pooled * weights[:, :height, :width]), pooled

        return jax.grad(total, has_aux=True)(x)

    for ours, plain in zip(
        value_and_grad(cpu_ops._max_pool_by_slices),
        value_and_grad(cpu_ops._max_pool),
        strict=True,
    ):
        np.testing.assert_allclose(ours, plain, rtol=1e-6)


def test_other_platforms_keep_the_plain_pooling():
    x = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
    pool = jax.jit(lambda x: cpu_ops.max_pool(x, window=2, stride=2))
    lowered = {
        platform: jax.export.export(pool, platforms=[platform])(x).mlir_module()
        for platform in ("cpu", "cuda", "tpu")
    }
    assert "reduce_window" not in lowered["cpu"]
    assert "reduce_window" in lowered["cuda"]
    assert "reduce_window" in lowered["tpu"]


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
        (dict(dtype="float16"), "dtype is 'float16'"),
    ],
)
def test_an_unknown_name_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        create(**change)
