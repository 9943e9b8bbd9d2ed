"""NT-Xent by hand, on several devices, and beside the loss with labels."""

from helpers.ranking_losses import AT_START, on_four_devices
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeprank_jax import losses
from deeprank_jax.distributed import devices
from deeprank_jax.relevance import Hierarchy


def create(temperature=0.5, axis_name=None):
    section = {"name": "nt_xent", "temperature": temperature}
    return losses.create_loss(section, axis_name=axis_name)


def random_views(seed, size=8, dim=6):
    rng = np.random.default_rng(seed)
    views = rng.normal(size=(size, 2, dim)).astype(np.float32)
    views /= np.linalg.norm(views, axis=-1, keepdims=True)
    return jnp.asarray(views)


def numbered(numbers):
    return {"instances": jnp.repeat(jnp.asarray(numbers)[:, None], 2, axis=1)}


def by_hand(views, temperature):
    """Equation (1) of the paper, each view's loss by itself in float64."""
    flat = np.float64(views).reshape(-1, views.shape[-1])
    losses_of_views = []
    for i in range(len(flat)):
        exponentials = [
            np.exp(flat[i] @ flat[k] / temperature) for k in range(len(flat)) if k != i
        ]
        other = np.exp(flat[i] @ flat[i ^ 1] / temperature)
        losses_of_views.append(-np.log(other / np.sum(exponentials)))
    return np.reshape(losses_of_views, (-1, 2)).mean(axis=1)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_it_is_the_published_loss(temperature):
    views = random_views(0)
    expected = by_hand(views, temperature)
    assert np.ptp(expected) > 0.1
    computed = create(temperature)(views, numbered(np.arange(8)), **AT_START)
    np.testing.assert_allclose(computed, expected, rtol=1e-5)


def test_two_views_are_told_from_one_pair_of_others():
    views = random_views(1, size=2)
    computed = create()(views, numbered([5, 3]), **AT_START)
    np.testing.assert_allclose(computed, by_hand(views, 0.5), rtol=1e-5)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("with_repeats", [False, True])
def test_it_is_supcon_with_the_image_for_a_class(seed, with_repeats):
    views, temperature = random_views(seed), 0.1 + 0.2 * seed
    numbers = np.random.default_rng(seed).permutation(100)[:8]
    if with_repeats:
        numbers[5] = numbers[0]
    batch = numbered(numbers)
    supcon = losses.create_loss(
        {"name": "supcon", "temperature": temperature},
        relevance_fn=Hierarchy((1.0,)).pairwise,
        min_relevance_gap=0.5,
    )
    labelled = {"attributes": batch["instances"][..., None]}
    losses_and_gradient = jax.jit(
        lambda loss, batch: (
            loss(views, batch, **AT_START),
            jax.grad(lambda x: loss(x, batch, **AT_START).mean())(views),
        ),
        static_argnums=0,
    )
    expected = losses_and_gradient(supcon, labelled)
    computed = losses_and_gradient(create(temperature), batch)
    for x, y in zip(computed, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7)


def test_a_second_draw_of_an_image_is_no_negative():
    views = random_views(2)
    views = views.at[7].set(views[0])
    alone = create()(views, numbered(np.arange(8)), **AT_START)
    together = create()(views, numbered([0, 1, 2, 3, 4, 5, 6, 0]), **AT_START)
    assert np.max(np.abs(alone - together)[[0, 7]]) > 0.1
    np.testing.assert_allclose(together[0], together[7], rtol=1e-5)
    np.testing.assert_allclose(alone[1:7], together[1:7], rtol=1e-5)


def test_four_devices_are_one():
    views, batch = random_views(3), numbered(np.arange(8))
    mean = lambda x: create()(x, batch, **AT_START).mean()
    value, grads = jax.value_and_grad(mean)(views)
    spread = create(axis_name=devices.DATA_AXIS)
    values, spread_grads = on_four_devices(spread, views, batch)
    np.testing.assert_allclose(values, np.full(4, value), rtol=1e-5)
    np.testing.assert_allclose(spread_grads, grads, rtol=1e-4, atol=1e-6)


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(ValueError, match=r"config\.loss\.temperature must be above 0"):
        create(0.0)
