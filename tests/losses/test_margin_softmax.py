"""NormFace, CosFace, ArcFace and proxy-anchor by hand, and on several devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeprank_jax import losses
from deeprank_jax.errors import ConfigError
from deeprank_jax.losses.margin_softmax import add_angular_margin
from deeprank_jax.losses.proxy_anchor import proxy_anchor_loss

AT_START = dict(step=0, key=jax.random.key(0))


def random_cosines(num=24, classes=5):
    rng = np.random.default_rng(0)
    cosines = rng.uniform(-1, 1, (num, classes)).astype(np.float32)
    return cosines, rng.integers(0, classes - 1, num)  # The last class has no image.


def evaluate(name, cosines, labels, step=0, **options):
    loss = losses.create_loss({"name": name, **options})
    batch = {"labels": jnp.asarray(labels)[:, None]}
    return loss(jnp.asarray(cosines)[:, None], batch, step=step, key=jax.random.key(0))


def cross_entropy(logits, label):
    return np.log(np.exp(logits - logits[label]).sum())


@pytest.mark.parametrize("margin", [0.0, 0.2, 0.5])
def test_margins_by_hand(margin):
    cosines, labels = random_cosines()
    beyond = 0
    expected = {"cosface": [], "arcface": [], "normface": []}
    for row, label in zip(cosines.astype(np.float64), labels, strict=True):
        expected["normface"].append(cross_entropy(10 * row, label))
        changed = row.copy()
        changed[label] -= margin
        expected["cosface"].append(cross_entropy(10 * changed, label))
        angle = np.arccos(row[label])
        changed[label] = np.cos(angle + margin)
        if angle + margin > np.pi:
            beyond += 1
            changed[label] = row[label] - margin * np.sin(margin)
        expected["arcface"].append(cross_entropy(10 * changed, label))
    assert beyond > 0 or margin < 0.5
    for name, values in expected.items():
        options = {} if name == "normface" else {"margin": margin}
        actual = evaluate(name, cosines, labels, scale=10.0, **options)
        np.testing.assert_allclose(actual, values, rtol=1e-4, err_msg=name)


def test_an_angular_margin_never_raises_a_cosine():
    cosines = jnp.linspace(-1, 1, 2001)[:, None]
    labels = jnp.zeros(2001, int)
    changed = add_angular_margin(cosines, labels, 0.5)[:, 0]
    assert jnp.all(changed < cosines[:, 0])
    slopes = jax.vmap(jax.grad(lambda c: add_angular_margin(c[None], 0, 0.5)[0]))(
        cosines[:, 0]
    )
    assert np.isfinite(slopes).all()


def test_the_margin_rises_in_the_warm_up():
    cosines, labels = random_cosines()
    evaluate_at = lambda step, **options: np.asarray(
        evaluate("arcface", cosines, labels, step=step, **options)
    )
    halved = evaluate_at(4, margin=0.5, warmup_steps=10)
    np.testing.assert_allclose(halved, evaluate_at(0, margin=0.25), rtol=1e-5)
    np.testing.assert_allclose(
        evaluate_at(9, margin=0.5, warmup_steps=10),
        evaluate_at(0, margin=0.5),
        rtol=1e-5,
    )


def loop_proxy_anchor(cosines, labels, margin, alpha):
    pulled, pushed = [], []
    for proxy, column in enumerate(cosines.astype(np.float64).T):
        is_own = labels == proxy
        if is_own.any():
            pulled.append(np.log1p(np.exp(-alpha * (column[is_own] - margin)).sum()))
        pushed.append(np.log1p(np.exp(alpha * (column[~is_own] + margin)).sum()))
    assert len(pulled) < len(pushed)
    return np.mean(pulled) + np.mean(pushed)


@pytest.mark.parametrize(("margin", "alpha"), [(0.1, 32.0), (0.3, 5.0)])
def test_proxy_anchor_by_hand(margin, alpha):
    cosines, labels = random_cosines()
    expected = loop_proxy_anchor(cosines, labels, margin, alpha)
    actual = evaluate("proxy_anchor", cosines, labels, margin=margin, alpha=alpha)
    np.testing.assert_allclose(actual, np.full(24, expected), rtol=1e-5)


@pytest.mark.slow
def test_proxies_see_the_images_of_all_devices():
    cosines, labels = random_cosines()
    loss = losses.create_loss({"name": "proxy_anchor"}, axis_name="data")

    def of_device(cosines, labels):
        mean = lambda x: loss(
            x[:, None], {"labels": labels[:, None]}, **AT_START
        ).mean()
        value, grads = jax.value_and_grad(mean)(cosines)
        # Gradients of parameters are averaged over the devices.
        return value, grads / jax.device_count()

    split = lambda x: jnp.asarray(x).reshape(4, -1, *x.shape[1:])
    values, grads = jax.pmap(of_device, axis_name="data")(split(cosines), split(labels))
    whole = lambda x: proxy_anchor_loss(x, jnp.asarray(labels))
    expected, expected_grads = jax.value_and_grad(whole)(jnp.asarray(cosines))
    np.testing.assert_allclose(values, np.full(4, expected), rtol=1e-5)
    np.testing.assert_allclose(
        grads.reshape(24, -1), expected_grads, rtol=1e-4, atol=1e-7
    )


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            dict(name="arcface", margin=2.0),
            r"config\.loss\.margin must be in \[0, 1\.57",
        ),
        (dict(name="cosface", margin=-0.1), r"margin must be in \[0, 2\]"),
        (dict(name="cosface", warmup_steps=-1), "warmup_steps must be at least 0"),
        (dict(name="normface", scale=0.0), "scale must be above 0"),
        (dict(name="normface", margin=0.1), "margin.*normface"),
        (
            dict(name="normface", label_smoothing=1.0),
            "label_smoothing must be at least 0",
        ),
        (dict(name="proxy_anchor", alpha=0.0), "alpha must be above 0"),
    ],
)
def test_options_out_of_range_are_refused(section, message):
    with pytest.raises(ConfigError, match=message):
        losses.create_loss(section)
