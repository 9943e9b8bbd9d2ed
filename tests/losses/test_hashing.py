"""The loss of binary codes: values, memory, gradients, devices and bad input."""

import json

from helpers import shrunk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeprank_jax import losses
from deeprank_jax.config import apply_overrides
from deeprank_jax.configs import base
from deeprank_jax.errors import ConfigError
from deeprank_jax.export import export_run
from deeprank_jax.inference.model import Model
from deeprank_jax.losses.hashing import soft_codes
from deeprank_jax.losses.memory import create_memory, remember
from deeprank_jax.relevance import Hierarchy
from deeprank_jax.search import codes
from deeprank_jax.training import loop

AT_START = dict(step=0, key=jax.random.key(0))
TERMS = {"supcon": {}, "contrastive": {"weight": 0.5}}


def create(section, axis_name=None):
    return losses.create_loss(
        section,
        relevance_fn=Hierarchy((0.1, 1.0)).pairwise,
        min_relevance_gap=0.05,
        axis_name=axis_name,
        positives_per_anchor=1,
        negatives_per_anchor=1,
    )


def hashing(terms=TERMS, axis_name=None, **options):
    return create({"name": "hashing", "terms": terms, **options}, axis_name)


def sum_of(terms=TERMS):
    return create({"name": "weighted_sum", "terms": terms})


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def codes_by_hand(rows, sharpness):
    rows = np.asarray(rows, np.float64)
    # tanh, by its definition.
    a = np.exp(2 * sharpness * np.sqrt(rows.shape[-1]) * rows)
    return jnp.asarray(unit((a - 1) / (a + 1)), jnp.float32)


def random_batch(size=8, dim=6):
    rng = np.random.default_rng(0)
    outputs = unit(rng.normal(size=(size, 3, dim)))
    coarse = rng.integers(0, 3, (size, 3))
    labels = np.stack([coarse, coarse * 2 + rng.integers(0, 2, (size, 3))], axis=-1)
    labels[:, 1] = labels[:, 0]
    batch = {"attributes": jnp.asarray(labels, jnp.int32)}
    return jnp.asarray(outputs, jnp.float32), batch


@pytest.mark.parametrize("options", [{}, {"sharpness": 0.7}])
def test_it_is_the_loss_of_codes(options):
    outputs, batch = random_batch()
    values = hashing(**options)(outputs, batch, **AT_START)
    rows = codes_by_hand(outputs, **{"sharpness": 2.0, **options})
    expected = sum_of()(rows, batch, **AT_START)
    np.testing.assert_allclose(values, expected, rtol=1e-4)
    assert np.any(np.abs(expected - sum_of()(outputs, batch, **AT_START)) > 1e-3)
    description = (
        "1 * (supervised contrastive, temperature 0.1), of codes of sharpness 2"
    )
    assert hashing({"supcon": {}}).describe() == description


def test_products_of_sharp_codes_count_the_bits_that_differ():
    rows = unit(np.random.default_rng(0).normal(size=(30, 24)))
    rows = rows[:, np.abs(rows).min(axis=0) > 1e-3]  # Far from 0.
    num_bits = rows.shape[1]
    products = np.asarray(soft_codes(jnp.asarray(unit(rows)), 1e4))
    packed = codes.encode_signs(rows)
    distances = np.unpackbits(packed[:, None] ^ packed, axis=-1).sum(axis=-1)
    expected = 1 - 2 * distances / num_bits
    np.testing.assert_allclose(products @ products.T, expected, atol=1e-5)
    assert num_bits > 5
    assert np.ptp(distances) > 3


def test_the_memory_is_coded_too():
    outputs, batch = random_batch()
    memory = create_memory(24, 6, np.asarray(batch["attributes"])[0])
    memory = remember(memory, outputs[::-1], batch["attributes"][::-1], None)
    terms = {"multi_similarity": {"memory_size": 24}}
    rows = codes_by_hand(memory["embeddings"], 2.0)
    coded = batch | {"memory": memory | {"embeddings": rows}}
    expected = sum_of(terms)(codes_by_hand(outputs, 2.0), coded, **AT_START)
    values = hashing(terms)(outputs, batch | {"memory": memory}, **AT_START)
    np.testing.assert_allclose(values, expected, rtol=1e-4)
    assert losses.memory_size({"name": "hashing", "terms": terms}) == 24


def test_gradients_are_those_of_differences():
    outputs, batch = random_batch(size=4)
    mean = lambda x: hashing()(x, batch, **AT_START).mean()
    gradient = jax.jit(jax.grad(mean))(outputs)
    direction = np.random.default_rng(1).normal(size=outputs.shape)
    step = jnp.asarray(1e-3 * direction, jnp.float32)
    value = jax.jit(mean)
    difference = (value(outputs + step) - value(outputs - step)) / 2e-3
    expected = float(np.sum(np.asarray(gradient) * direction))
    assert abs(expected) > 0.01
    assert float(difference) == pytest.approx(expected, rel=0.03)


def test_gradients_are_finite_where_an_embedding_is_zero():
    outputs, batch = random_batch()
    outputs = outputs.at[0, 0].set(0.0)
    gradient = jax.grad(lambda x: hashing()(x, batch, **AT_START).sum())(outputs)
    assert np.all(np.isfinite(gradient))
    assert np.all(np.abs(gradient[1:]).sum(axis=(0, 1)) > 0)


def test_devices_compare_their_codes():
    outputs, batch = random_batch()
    loss = hashing(axis_name="data")

    def of_device(outputs, batch):
        mean = lambda x: loss(x, batch, **AT_START).mean()
        value, gradient = jax.value_and_grad(mean)(outputs)
        # Gradients of parameters are averaged over the devices.
        return jax.lax.pmean(value, "data"), gradient / jax.device_count()

    split = lambda x: x.reshape(4, -1, *x.shape[1:])
    args = jax.tree.map(split, (outputs, batch))
    values, gradients = jax.pmap(of_device, axis_name="data")(*args)
    whole = lambda x: hashing()(x, batch, **AT_START).mean()
    expected, expected_gradient = jax.value_and_grad(whole)(outputs)
    np.testing.assert_allclose(values, np.full(4, expected), rtol=1e-5)
    np.testing.assert_allclose(
        gradients.reshape(outputs.shape), expected_gradient, rtol=1e-3, atol=1e-6
    )


@pytest.mark.parametrize("sharpness", [0.0, -1.0, float("inf"), float("nan")])
def test_a_sharpness_out_of_range_is_refused(sharpness):
    message = r"config\.loss\.sharpness must be above 0 and finite, got"
    with pytest.raises(ConfigError, match=message):
        hashing(sharpness=sharpness)


def test_without_a_term_it_is_refused():
    with pytest.raises(ConfigError, match=r"config\.loss\.terms must name at least"):
        hashing({})


@pytest.mark.usefixtures("without_pictures")
def test_a_run_trains_codes_and_measures_them(tmp_path):
    config = shrunk.shrink(base.get_config(), num_steps=4)
    apply_overrides(
        config,
        [
            ("loss.name", "hashing"),
            ("loss.terms.multi_similarity.memory_size", "32"),
            ("model.embedding_dim", "16"),
            ("model.embedding_norm", "True"),
            ("evaluation.evaluators.codes", "{}"),
            ("evaluation.best_metric", "codes/map@r"),
        ],
    )
    config.data.dir = str(shrunk.write_images(tmp_path / "images"))
    report = loop.train(config, tmp_path / "run")
    assert "of codes of sharpness 2" in report.read_text("utf-8")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    orders = ("", "_asymmetric", "_numbers")
    names = {f"{name}{order}" for name in ("recall@1", "map@r") for order in orders}
    assert results["test"]["codes"].keys() == names
    model = Model(export_run(tmp_path / "run", tmp_path / "model"))
    assert model.embedding_dim == 16
