"""The CPU's forms have the values and gradients of the plain ones."""

import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeprank_jax.models import cpu_ops, layers


def random(*shape, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(1.0, 2.0, shape), jnp.float32)


def value_and_grads(fn, *args):
    """Returns what `fn` gives, and the gradients of a weighted sum of it."""

    def total(*args):
        out = fn(*args)
        leaves = jax.tree.leaves(out)
        weighted = (jnp.sum(x * random(*x.shape, seed=9)) for x in leaves)
        return sum(weighted), out

    grads, out = jax.jit(
        jax.grad(total, argnums=tuple(range(len(args))), has_aux=True)
    )(*args)
    return jax.tree.leaves((out, grads))


def assert_same(fn, other, *args, atol=1e-5):
    ours, plain = value_and_grads(fn, *args), value_and_grads(other, *args)
    assert len(ours) == len(plain) > 1
    for one, two in zip(ours, plain, strict=True):
        assert np.abs(two).max() > 0.1
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=atol)


PADDINGS = ["SAME", "VALID", ((1, 1), (1, 1))]


@pytest.mark.parametrize("padding", PADDINGS, ids=str)
@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize(("window", "stride"), [(2, 2), (3, 2), (3, 4), (7, 2)])
def test_both_forms_of_max_pooling_agree(size, window, stride, padding):
    options = dict(window=window, stride=stride, padding=padding)
    assert_same(
        functools.partial(cpu_ops._max_pool_by_slices, **options),
        functools.partial(cpu_ops._max_pool, **options),
        random(2, size, size, 3),
    )


@pytest.mark.parametrize("size", [7, 8])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
def test_both_forms_of_depthwise_convolution_agree(size, kernel, stride):
    assert_same(
        functools.partial(cpu_ops._depthwise_by_slices, stride),
        functools.partial(cpu_ops._depthwise, stride=stride),
        random(2, size, size, 6),
        random(kernel, kernel, 1, 6, seed=1),
        atol=1e-4,
    )


@pytest.mark.parametrize("padding", PADDINGS, ids=str)
@pytest.mark.parametrize(
    ("size", "kernel", "stride"), [(4, 3, 2), (3, 3, 1), (2, 2, 1)]
)
def test_a_convolution_of_few_pixels_is_a_matrix_product(size, kernel, stride, padding):
    x, weights = random(2, size, size, 5), random(kernel, kernel, 5, 6, seed=1)
    options = dict(dimension_numbers=("NHWC", "HWIO", "NHWC"))
    strides = (stride, stride)
    plain = lambda x, k: jax.lax.conv_general_dilated(x, k, strides, padding, **options)
    ours = lambda x, k: cpu_ops._conv_by_product(
        x, k, stride=stride, pads=cpu_ops._pads(x, kernel, stride, padding)
    )
    assert_same(ours, plain, x, weights, atol=1e-4)
    chosen = lambda x, k: cpu_ops.conv_general_dilated(
        x, k, strides, padding, **options
    )
    assert_same(chosen, plain, x, weights, atol=1e-4)
    pixels = np.prod(plain(x, weights).shape[1:3])
    jaxpr = str(jax.make_jaxpr(chosen)(x, weights))
    assert ("dot_general" in jaxpr) == (pixels <= cpu_ops._FEW_PIXELS)


def test_a_grouped_convolution_of_few_pixels_stays_one():
    x, weights = random(2, 2, 2, 6), random(3, 3, 3, 4, seed=1)
    options = dict(dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=2)
    found = cpu_ops.conv_general_dilated(x, weights, (1, 1), "SAME", **options)
    plain = jax.lax.conv_general_dilated(x, weights, (1, 1), "SAME", **options)
    np.testing.assert_array_equal(found, plain)


def test_both_forms_of_channel_sums_agree():
    fn = lambda x, y: (x, jnp.square(x) * y)
    assert_same(
        functools.partial(cpu_ops._channel_sums_by_scan, fn),
        functools.partial(cpu_ops._channel_sums, fn),
        random(4, 3, 5, 6),
        random(4, 3, 5, 6, seed=1),
        atol=1e-4,
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_channel_sums_are_float32(dtype):
    # 1 + 1,000 * .001 in bfloat16 would stay at 1.
    x = jnp.full((1000, 1, 1, 1), 0.001, dtype).at[0].set(1.0)
    (total,) = jax.jit(lambda x: cpu_ops.channel_sums(lambda x: (x,), x))(x)
    assert total.dtype == jnp.float32
    assert float(total[0]) == pytest.approx(1.999, rel=1e-3)


def test_batch_norm_is_that_of_flax():
    def both(cls):
        def apply(x, scale, bias):
            norm = cls(5, momentum=0.7, epsilon=1e-2, rngs=nnx.Rngs(0))
            norm.scale[...], norm.bias[...] = scale, bias
            trained = norm(x)
            running = norm.mean[...], norm.var[...]
            norm.eval()
            return trained, jax.lax.stop_gradient(running), norm(x)

        return apply

    assert_same(
        both(layers.BatchNorm), both(nnx.BatchNorm),
        random(6, 3, 3, 5), random(5, seed=1), random(5, seed=2), atol=1e-3,
    )  # fmt: skip


def test_batch_norm_of_a_spread_batch_is_that_of_the_whole():
    def apply(x, axis_name):
        norm = layers.BatchNorm(5, axis_name=axis_name, rngs=nnx.Rngs(0))
        return norm(x)

    whole = lambda x: apply(x, None)
    spread = lambda x: jax.vmap(
        lambda part: apply(part, "data"), axis_name="data"
    )(x.reshape(4, 2, 3, 3, 5)).reshape(x.shape)  # fmt: skip
    assert_same(spread, whole, random(8, 3, 3, 5))


def test_frozen_batch_norm_keeps_its_statistics():
    norm = layers.BatchNorm(5, use_running_average=True, rngs=nnx.Rngs(0))
    x = random(6, 3, 3, 5)
    np.testing.assert_allclose(norm(x), x / np.sqrt(1 + 1e-5), rtol=1e-5)
    np.testing.assert_array_equal(norm.mean[...], np.zeros(5))


def depthwise_and_pool(x, kernel):
    x = cpu_ops.depthwise_conv(x, kernel, 1)
    x = cpu_ops.normalize_channels(x, *cpu_ops.channel_moments(x), jnp.zeros(3))
    return cpu_ops.max_pool(x, window=2, stride=2)


def test_other_platforms_keep_the_plain_forms():
    step = jax.jit(jax.grad(lambda *args: depthwise_and_pool(*args).sum(), (0, 1)))
    args = jax.eval_shape(lambda: (jnp.zeros((2, 8, 8, 3)), jnp.zeros((3, 3, 1, 3))))
    lowered = {
        platform: jax.export.export(step, platforms=[platform])(*args).mlir_module()
        for platform in ("cpu", "cuda", "tpu")
    }
    for platform, module in lowered.items():
        on_cpu = platform == "cpu"
        assert ("stablehlo.while" in module) == on_cpu  # Sums by scan.
        assert ("select_and_scatter" in module) != on_cpu
        assert ("feature_group_count = 3" in module) != on_cpu


def test_the_plain_form_sums_in_float32_too():
    x = jnp.full((1000, 1, 1, 1), 0.001, jnp.bfloat16).at[0].set(1.0)
    (total,) = cpu_ops._channel_sums(lambda x: (x,), x)
    assert total.dtype == jnp.float32
    assert float(total[0]) == pytest.approx(1.999, rel=1e-3)


def test_batch_norm_in_bfloat16_is_that_of_float32_rounded():
    x, weights = random(64, 3, 3, 5), random(64, 3, 3, 5, seed=3)

    def run(dtype):
        def total(x, scale, bias):
            norm = layers.BatchNorm(5, rngs=nnx.Rngs(0))
            norm.scale[...], norm.bias[...] = scale, bias
            return jnp.sum(norm(x.astype(dtype)).astype(jnp.float32) * weights)

        return jax.grad(total, argnums=(0, 1, 2))(x, jnp.ones(5), jnp.zeros(5))

    for rounded, exact in zip(run(jnp.bfloat16), run(jnp.float32), strict=True):
        error = np.linalg.norm(rounded - exact) / np.linalg.norm(exact)
        assert error < 0.02


def test_batch_norm_in_bfloat16_rounds_nothing_but_its_result():
    x = random(64, 3, 3, 5).astype(jnp.bfloat16)
    one, two = (layers.BatchNorm(5, rngs=nnx.Rngs(0)) for _ in range(2))
    exact = two(x.astype(jnp.float32)).astype(jnp.bfloat16)
    np.testing.assert_array_equal(one(x), exact)
    np.testing.assert_array_equal(one.var[...], two.var[...])
