"""Whitening: its arithmetic, and its way from training to an exported model."""

import functools
import json

from helpers import shrunk
import jax.numpy as jnp
import numpy as np
import pytest

from deeprank_jax import models
from deeprank_jax.data import create_records
from deeprank_jax.errors import CheckpointError
from deeprank_jax.experiments import evaluate
from deeprank_jax.export import run as export_run
from deeprank_jax.inference.model import Model
from deeprank_jax.training import checkpoints, experiment, init_from, loop, whitening

POWER = 0.5


def draw_embeddings(num, dim, rng):
    """Draws unit vectors around a mean, whose axes vary by different amounts."""
    scales = np.geomspace(1.0, 0.05, dim)
    x = (
        rng.normal(size=(num, dim))
        * scales
        @ np.linalg.qr(rng.normal(size=(dim, dim)))[0]
        + 0.3
    )
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("power", [0.3, 0.5, 1.0])
def test_second_moments_are_raised_to_what_the_power_leaves(power):
    rng = np.random.default_rng(0)
    embeddings = draw_embeddings(20_000, 6, rng)
    matrix = whitening.fit_whitening(embeddings, power)
    whitened = embeddings @ matrix
    before = np.linalg.eigvalsh(embeddings.T @ embeddings / 20_000)[::-1]
    assert before[0] > 20 * before[-1]
    moments = whitened.T @ whitened / 20_000
    np.testing.assert_allclose(np.diag(moments), before ** (1 - power), rtol=0.02)
    off = moments - np.diag(np.diag(moments))
    assert np.abs(off).max() < 1e-3 * moments.max()
    # Neither the order of the images nor the library decides the signs.
    shuffled = whitening.fit_whitening(embeddings[rng.permutation(20_000)], power)
    np.testing.assert_allclose(shuffled, matrix, atol=1e-5)


@pytest.mark.parametrize("case", ["fewer than dimensions", "all equal", "a dead axis"])
def test_degenerate_embeddings_give_a_usable_matrix(case):
    rng = np.random.default_rng(1)
    embeddings = draw_embeddings(5, 32, rng)
    if case == "all equal":
        embeddings[:] = embeddings[0]
    if case == "a dead axis":
        embeddings = draw_embeddings(500, 32, rng)
        embeddings[:, 3] = 0
    matrix = whitening.fit_whitening(embeddings, 1.0)
    assert np.isfinite(matrix).all()
    assert np.linalg.matrix_rank(matrix) == 32


def test_a_network_is_unchanged_until_it_is_fitted():
    create = functools.partial(
        models.create_model,
        trunk=dict(name="convnet", widths=(4, 8)),
        image_size=17,
        embedding_dim=6,
    )
    images = np.random.default_rng(0).integers(0, 256, (3, 17, 17, 3)).astype(np.uint8)
    plain, network = create(), create(whitening_power=POWER)
    plain.eval()
    network.eval()
    embeddings = np.asarray(plain.embed(images))
    np.testing.assert_allclose(network.embed(images), embeddings, atol=1e-6)
    matrix = np.diag(np.arange(1.0, 7.0))
    network.whitening.matrix[...] = jnp.asarray(matrix, jnp.float32)
    expected = embeddings @ matrix
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(network.embed(images), expected, atol=1e-5)
    # Training sees what it saw before.
    np.testing.assert_allclose(network(images), plain(images), atol=1e-6)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    images = shrunk.write_images(tmp_path_factory.mktemp("images"), num_classes=12)
    return shrunk.create_config(images, **{"model.whitening_power": POWER})


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    loop.train(config, workdir)
    return workdir


def embed_all(network, config, split):
    records = create_records(config.data)[split]
    with experiment.create_reader(config, records) as reader:
        return np.asarray(network(reader.load(np.arange(len(records)))[0]))


def test_a_run_ends_whitened_by_its_training_images(trained, config, tmp_path):
    whitened = evaluate.load_run(trained)
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "config.json").symlink_to(trained / "config.json")
    (plain / "checkpoints").symlink_to(trained / "checkpoints")
    raw = evaluate.load_run(plain)
    training = embed_all(raw.embed, config, "train")
    matrix = whitening.fit_whitening(training, POWER)
    expected = embed_all(raw.embed, config, "test") @ matrix
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    actual = embed_all(whitened.embed, config, "test")
    np.testing.assert_allclose(actual, expected, atol=1e-3)
    assert np.abs(actual - embed_all(raw.embed, config, "test")).max() > 0.05
    with np.load(trained / "test_embeddings.npz") as file:
        np.testing.assert_allclose(file["embeddings"], actual, atol=1e-5)
    page = (trained / "report" / "index.html").read_text()
    num = len(create_records(config.data)["train"])
    assert f"power 0.5, fitted on {num} training images" in page


def test_an_exported_model_embeds_as_the_run(trained, config, tmp_path):
    model = Model(export_run.export_run(trained, tmp_path / "model"))
    with np.load(trained / "test_embeddings.npz") as file:
        np.testing.assert_allclose(
            embed_all(model.embed_prepared, config, "test"),
            file["embeddings"],
            atol=1e-5,
        )


def test_the_report_made_again_is_the_same(trained, config):
    results = json.loads((trained / "results.json").read_text())
    before = (trained / "whitening.npz").read_bytes()
    loop.train(config, trained)
    assert json.loads((trained / "results.json").read_text()) == results
    assert (trained / "whitening.npz").read_bytes() == before


def test_another_step_is_not_whitened(trained, warnings_logged):
    saved = checkpoints.read_network(trained)
    other = trained / "checkpoints" / "99"
    moved = whitening.with_whitening(
        checkpoints.Saved(where=other, arrays=saved.arrays, config=saved.config)
    )
    assert moved.arrays is saved.arrays
    assert "not whitened" in warnings_logged[-1]


def test_a_damaged_file_is_named(trained, tmp_path):
    saved = checkpoints.read_network(trained)
    (tmp_path / "whitening.npz").write_bytes(b"PK of no archive")
    where = tmp_path / "checkpoints" / saved.where.name
    with pytest.raises(CheckpointError, match=r"whitening\.npz is damaged .* again"):
        whitening.with_whitening(
            checkpoints.Saved(where=where, arrays=saved.arrays, config=saved.config)
        )


def test_a_run_that_starts_from_it_is_not_whitened_before_its_own_end(
    trained, config, tmp_path
):
    with experiment.create_experiment(config, tmp_path) as run:
        state = init_from.load_state(run.state, trained)
        matrix = np.asarray(state.model_state["whitening"]["matrix"][...])
        np.testing.assert_array_equal(matrix, np.eye(len(matrix)))
