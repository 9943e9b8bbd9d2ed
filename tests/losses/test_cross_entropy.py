import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeprank_jax.losses.cross_entropy import is_in_top, softmax_cross_entropy


def random_logits(num=40, classes=7):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (num, classes)).astype(np.float32)
    return logits, rng.integers(0, classes, num)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_cross_entropy_by_hand(smoothing, wrap):
    logits, labels = random_logits()
    expected = []
    for row, label in zip(logits.astype(np.float64), labels, strict=True):
        p = np.exp(row) / np.exp(row).sum()
        target = np.full(7, smoothing / 7)
        target[label] += 1 - smoothing
        expected.append(-np.sum(target * np.log(p)))
    fn = wrap(lambda x, y: softmax_cross_entropy(x, y, label_smoothing=smoothing))
    np.testing.assert_allclose(fn(logits, jnp.asarray(labels)), expected, rtol=1e-5)


def test_large_logits_stay_finite():
    logits = jnp.array([[1e4, -1e4, 0.0]])
    loss, grad = jax.value_and_grad(
        lambda x: softmax_cross_entropy(x, jnp.array([1]), label_smoothing=0.1).sum()
    )(logits)
    assert np.isfinite(loss)
    assert np.isfinite(grad).all()


@pytest.mark.parametrize("k", [1, 3, 5])
def test_top_k_by_sorting(k):
    logits, labels = random_logits()
    order = np.argsort(-logits, axis=1)[:, :k]
    expected = [label in row for label, row in zip(labels, order, strict=True)]
    assert 0 < np.mean(expected) < 1
    found = is_in_top(jnp.asarray(logits), jnp.asarray(labels), k)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.slow
def test_knowing_nothing_is_not_being_right():
    labels = jnp.arange(8)
    for num in (2, 8):
        known = jnp.arange(num)
        assert is_in_top(jnp.zeros((num, num)), known, 1).sum() == 0
        assert is_in_top(jnp.eye(num), known, 1).sum() == num
    assert is_in_top(jnp.full((8, 8), jnp.nan), labels, 5).sum() == 0


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_smoothing_out_of_range_is_refused(smoothing):
    with pytest.raises(ValueError, match="label_smoothing must be at least 0"):
        softmax_cross_entropy(
            jnp.zeros((1, 2)), jnp.zeros(1, int), label_smoothing=smoothing
        )
