"""Contrastive loss of listed pairs: the published formula, gradients and masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeprank_jax import losses
from deeprank_jax.losses.contrastive import contrastive_loss, pair_contrastive_loss

AT_START = dict(step=0, key=jax.random.key(0))


def random_pairs(size=12, dim=5):
    """Returns unit vectors `[B, 2, D]`, near and far, and `[B]` ints of both kinds."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(size, 2, dim))
    x[::2, 1] = x[::2, 0] + rng.normal(size=(size // 2, dim)) / 10
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    return x.astype(np.float32), np.arange(size) // 2 % 2


def formula(a, b, is_similar, margin=0.7):
    """Hadsell's loss of one pair, with Radenovic's distance, in double precision."""
    distance = np.sqrt(sum((float(x) - float(y) + 1e-6) ** 2 for x, y in zip(a, b)))  # noqa: B905
    return distance**2 / 2 if is_similar else max(0.0, margin - distance) ** 2 / 2


@pytest.mark.parametrize("margin", [0.2, 0.7, 2.0])
def test_it_is_the_published_loss_of_each_pair(margin):
    x, is_similar = random_pairs()
    loss = losses.create_loss({"name": "pair_contrastive", "margin": margin})
    computed = jax.jit(loss)(x, {"is_similar": is_similar}, **AT_START)
    expected = [formula(*x[i], is_similar[i], margin) for i in range(len(x))]
    assert len({*np.round(expected, 6)}) > 6
    np.testing.assert_allclose(computed, expected, rtol=1e-4, atol=1e-7)
    assert loss.describe() == f"contrastive on listed pairs, margin {margin:g}"


def test_the_gradient_is_that_of_finite_differences():
    x, is_similar = random_pairs()
    total = lambda y: pair_contrastive_loss(
        y[:, 0], y[:, 1], is_similar > 0, margin=0.7
    ).sum()
    gradient = np.asarray(jax.jit(jax.grad(total))(x))
    assert np.ptp(gradient) > 0.1
    step = 1e-5
    for i in np.ndindex(x.shape):
        sides = []
        for sign in (-1, 1):
            moved = x.astype(np.float64)
            moved[i] += sign * step
            sides.append(formula(*moved[i[0]], is_similar[i[0]]))
        assert gradient[i] == pytest.approx((sides[1] - sides[0]) / 2 / step, abs=1e-3)


@pytest.mark.parametrize("is_similar", [0, 1])
@pytest.mark.parametrize("offset", [0.0, 1e-6])
def test_coinciding_images_have_a_finite_gradient(is_similar, offset):
    """Also where each difference is exactly -epsilon, so that the distance is 0."""
    x = jnp.zeros((1, 2, 4)).at[0, 1].set(offset)
    loss = losses.create_loss({"name": "pair_contrastive"})
    batch = {"is_similar": jnp.array([is_similar])}
    gradient = jax.grad(lambda y: loss(y, batch, **AT_START).sum())(x)
    assert np.isfinite(gradient).all()
    # Different images that coincide are pushed apart.
    assert np.any(gradient != 0) == (offset == 0.0)


def test_a_pair_knows_no_other_image_of_the_batch():
    x, is_similar = random_pairs()
    loss = losses.create_loss({"name": "pair_contrastive"})
    whole = loss(x, {"is_similar": is_similar}, **AT_START)
    for i in range(len(x)):
        alone = loss(x[i : i + 1], {"is_similar": is_similar[i : i + 1]}, **AT_START)
        np.testing.assert_allclose(alone, whole[i : i + 1], rtol=1e-6)


def test_it_is_the_loss_of_a_batch_with_a_single_pair():
    """The loss on all pairs of a batch, where a mask leaves one of them."""
    x, is_similar = random_pairs()
    similarities = np.sum(x[:, 0] * x[:, 1], axis=1)[:, None]
    mask = is_similar[:, None] > 0
    of_batch = contrastive_loss(similarities, mask, ~mask)
    of_pairs = pair_contrastive_loss(x[:, 0], x[:, 1], is_similar > 0)
    np.testing.assert_allclose(of_pairs, of_batch, atol=3e-6)


@pytest.mark.parametrize("margin", [0.0, -1.0, 2.1])
def test_a_margin_that_is_no_distance_is_refused(margin):
    with pytest.raises(ValueError, match=r"margin must be above 0 and at most 2"):
        losses.create_loss({"name": "pair_contrastive", "margin": margin})
