import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from deeprank_jax.training import optimizers

OPTIONS = dict(
    name="sgd", momentum=0.0, nesterov=False, b1=0.9, b2=0.999,
    l2_penalty=0.0, decoupled_weight_decay=0.0, clip_norm=0.0, trunk_scale=1.0,
)  # fmt: skip


def create_params():
    return {"conv": {"kernel": jnp.array([2.0, -4.0]), "bias": jnp.array([3.0])}}


def one_update(options, grads, rate=0.5):
    params = create_params()
    tx = optimizers.create_optimizer({**OPTIONS, **options}, lambda _: rate)
    updates, _ = tx.update(grads, tx.init(params), params)
    return optax.apply_updates(params, updates)


def test_l2_penalty_is_the_papers_lambda():
    loss = lambda params: jnp.sum(params["conv"]["kernel"] * 3.0)
    penalised = lambda params: (
        loss(params) + 0.1 * jnp.sum(params["conv"]["kernel"] ** 2)
    )
    ours = one_update({"l2_penalty": 0.1}, jax.grad(loss)(create_params()))
    by_hand = one_update({}, jax.grad(penalised)(create_params()))
    jax.tree.map(np.testing.assert_allclose, ours, by_hand)
    assert ours["conv"]["bias"] == 3.0


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_decoupled_decay_shrinks_kernels_by_rate_times_decay(name):
    zero = jax.tree.map(jnp.zeros_like, create_params())
    options = {"name": name, "decoupled_weight_decay": 0.1}
    updated = one_update(options, zero, rate=0.5)
    np.testing.assert_allclose(updated["conv"]["kernel"], [1.9, -3.8], rtol=1e-6)
    assert updated["conv"]["bias"] == 3.0


def test_clipping_bounds_the_update():
    grads = jax.tree.map(lambda x: 100.0 * x, create_params())
    updated = one_update({"clip_norm": 1.0}, grads, rate=1.0)
    moved = jax.tree.map(jnp.subtract, updated, create_params())
    np.testing.assert_allclose(optax.tree.norm(moved), 1.0, rtol=1e-5)


def test_nesterov_is_momentum_looked_ahead():
    ones = jax.tree.map(jnp.ones_like, create_params())
    updated = one_update({"momentum": 0.9, "nesterov": True}, ones, rate=1.0)
    np.testing.assert_allclose(updated["conv"]["bias"], 3.0 - 1.9, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("constant", [0.0, 1.0, 2.0, 2.0, 2.0]),
        ("linear", [0.0, 1.0, 2.0, 1.0, 0.0]),
        ("cosine", [0.0, 1.0, 2.0, 1.0, 0.0]),
    ],
)
def test_schedules_warm_up_then_decay(name, expected):
    schedule = optimizers.make_schedule(
        name=name, learning_rate=2.0, warmup_steps=10, num_steps=30
    )
    values = [schedule(step) for step in (0, 5, 10, 20, 30)]
    np.testing.assert_allclose(values, expected, atol=1e-6)


def test_no_warmup_starts_at_the_peak():
    schedule = optimizers.make_schedule(
        name="constant", learning_rate=2.0, warmup_steps=0, num_steps=30
    )
    assert schedule(0) == 2.0


def test_what_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"optimizer\.name is 'adam'"):
        optimizers.create_optimizer({**OPTIONS, "name": "adam"}, lambda _: 1.0)
    create = lambda **change: optimizers.make_schedule(
        **{**dict(name="cosine", learning_rate=1.0, warmup_steps=1), **change},
        num_steps=10,
    )
    with pytest.raises(ValueError, match=r"schedule\.name is 'step'"):
        create(name="step")
    with pytest.raises(ValueError, match="warmup_steps is 10"):
        create(warmup_steps=10)


def test_the_trunk_learns_at_a_rate_of_its_own():
    params = {"trunk": {"kernel": jnp.ones(2)}, "embedding": {"kernel": jnp.ones(2)}}
    grads = jax.tree.map(jnp.ones_like, params)
    for name in optimizers.OPTIMIZERS:
        for scale in (1.0, 0.25, 0.0):
            options = {**OPTIONS, "name": name, "trunk_scale": scale}
            tx = optimizers.create_optimizer(options, lambda _: 0.1)
            updates, _ = tx.update(grads, tx.init(params), params)
            trunk = updates["trunk"]["kernel"]
            head = updates["embedding"]["kernel"]
            assert np.abs(head).min() > 0.01
            np.testing.assert_allclose(trunk, scale * head, rtol=1e-6)


@pytest.mark.parametrize("name", ["trunk_scale", "clip_norm"])
def test_what_cannot_be_negative_is_refused(name):
    with pytest.raises(ValueError, match=rf"optimizer\.{name} must be at .* got -1"):
        optimizers.create_optimizer({**OPTIONS, name: -1}, lambda _: 1.0)


def test_a_frozen_trunk_keeps_no_moments():
    params = {"trunk": create_params(), "head": create_params()}
    tx = optimizers.create_optimizer(
        {**OPTIONS, "name": "adamw", "trunk_scale": 0.0}, lambda _: 1.0
    )
    held = sum(x.size for x in jax.tree.leaves(tx.init(params)) if x.ndim)
    assert held == 2 * sum(x.size for x in jax.tree.leaves(params["head"]))
