"""Distillation: the published formula, devices, blocks and bad input."""

from helpers.ranking_losses import AT_START, on_four_devices
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from deeprank_jax import losses
from deeprank_jax.distributed import devices
from deeprank_jax.errors import ConfigError
from deeprank_jax.losses import batch_mining
from deeprank_jax.relevance import SameClass


def create(axis_name=None, **options):
    return losses.create_loss(
        {"name": "distillation", **options},
        relevance_fn=SameClass().pairwise,
        min_relevance_gap=0.1,
        axis_name=axis_name,
        positives_per_anchor=2,
        negatives_per_anchor=0,
    )


def random_groups(seed, size=8, num_images=3, dim=5):
    """Returns embeddings of both models; those of the teacher are longer."""
    rng = np.random.default_rng(seed)
    ours = rng.normal(size=(size, num_images, dim)).astype(np.float32)
    ours /= np.linalg.norm(ours, axis=-1, keepdims=True)
    teacher = rng.normal(size=(size, num_images, 2 * dim)).astype(np.float32)
    teacher /= np.linalg.norm(teacher, axis=-1, keepdims=True)
    return jnp.asarray(ours), jnp.asarray(teacher)


def test_it_is_the_divergence_from_the_teacher_s_neighbours():
    ours, teacher = random_groups(0)
    x, t = (np.asarray(a, np.float64).reshape(24, -1) for a in (ours, teacher))
    expected = []
    for i in range(24):
        others = np.arange(24) != i
        p = special.softmax((x @ x[i])[others] / 0.2)
        q = special.softmax((t @ t[i])[others] / 0.05)
        expected.append(special.rel_entr(q, p).sum())
    loss = create(temperature=0.2, teacher_temperature=0.05)
    actual = loss(ours, {"teacher": teacher}, **AT_START)
    np.testing.assert_allclose(actual, np.reshape(expected, (8, 3)).mean(1), rtol=1e-5)


def test_the_loss_is_zero_if_the_network_equals_the_teacher():
    ours, _ = random_groups(1)
    loss = lambda x: create()(x, {"teacher": ours}, **AT_START).mean()
    value, grads = jax.value_and_grad(loss)(ours)
    assert abs(value) < 1e-6
    assert jnp.abs(grads).max() < 1e-4


def test_four_devices_are_as_one():
    ours, teacher = random_groups(2)
    value, grads = jax.value_and_grad(
        lambda x: create()(x, {"teacher": teacher}, **AT_START).mean()
    )(ours)
    shared = create(axis_name=devices.DATA_AXIS)
    values, of_devices = on_four_devices(shared, ours, {"teacher": teacher})
    np.testing.assert_allclose(values, np.full(4, value), rtol=1e-5)
    np.testing.assert_allclose(of_devices, grads, rtol=1e-4, atol=1e-6)


def test_blocks_change_nothing(monkeypatch):
    ours, teacher = random_groups(3)
    loss = lambda x: create()(x, {"teacher": teacher}, **AT_START).mean()
    value, grads = jax.value_and_grad(loss)(ours)
    monkeypatch.setattr(batch_mining, "PAIRS", 24 * 5)
    in_blocks, of_blocks = jax.value_and_grad(loss)(ours)
    assert "scan" in str(jax.make_jaxpr(loss)(ours))
    np.testing.assert_allclose(in_blocks, value, rtol=1e-6)
    np.testing.assert_allclose(of_blocks, grads, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", ["temperature", "teacher_temperature"])
def test_a_temperature_must_be_positive(name):
    with pytest.raises(ConfigError, match=rf"config\.loss\.{name} must be above 0"):
        create(**{name: 0.0})


def test_an_image_of_two_groups_is_not_its_own_neighbour():
    """Its copy says nothing of how it is to lie among the others."""
    ours, teacher = random_groups(4)
    same = ours.at[1, 2].set(ours[0, 1]), teacher.at[1, 2].set(teacher[0, 1])
    x, t = (np.asarray(a, np.float64).reshape(24, -1) for a in same)
    others = [i for i in range(24) if i not in (1, 5)]
    p, q = (special.softmax(a[others] @ a[1] / 0.1) for a in (x, t))
    row = create()._row_losses(
        batch_mining.gather_images(*same, None), jnp.arange(24)[1:2]
    )
    np.testing.assert_allclose(row[0], special.rel_entr(q, p).sum(), rtol=1e-5)


def test_sums_of_sums_take_a_teacher_too():
    nested = {"terms": {"weighted_sum": {"terms": {"distillation": {}}}}}
    assert losses.takes_teacher({"name": "weighted_sum", **nested})
    assert not losses.takes_teacher({"name": "weighted_sum", "terms": {"supcon": {}}})
