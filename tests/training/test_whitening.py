"""Whitening: its arithmetic, and its way from training to an exported model."""

import dataclasses
import functools
import json
import shutil

from helpers import shrunk
import jax.numpy as jnp
import numpy as np
import pytest

from deeprank_jax import models
from deeprank_jax.data import create_records
from deeprank_jax.errors import CheckpointError, ConfigError
from deeprank_jax.experiments import evaluate, features
from deeprank_jax.export import run as export_run
from deeprank_jax.inference.model import Model
from deeprank_jax.models import multiscale
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
    after = np.linalg.eigvalsh(whitened.T @ whitened / 20_000)[::-1]
    np.testing.assert_allclose(after, before ** (1 - power), rtol=0.02)


@pytest.mark.parametrize("num", [40, 400])
def test_the_matrix_does_not_depend_on_the_last_bits(num):
    rng = np.random.default_rng(0)
    embeddings = draw_embeddings(num, 128, rng)
    matrix = whitening.fit_whitening(embeddings, POWER)
    np.testing.assert_array_equal(matrix, matrix.T)
    nearly = embeddings * (1 + 1e-15 * rng.normal(size=embeddings.shape))
    shuffled = nearly[rng.permutation(num)]
    again = whitening.fit_whitening(shuffled, POWER)
    np.testing.assert_allclose(again, matrix, atol=1e-4 * np.abs(matrix).max())


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
def images(tmp_path_factory):
    return shrunk.write_images(tmp_path_factory.mktemp("images"), num_classes=12)


@pytest.fixture(scope="module")
def config(images):
    return shrunk.create_config(
        images, **{"model.whitening_power": POWER, "model.embed_shift": 2}
    )


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    loop.train(config, workdir)
    return workdir


def embed_all(network, config, split):
    records = create_records(config.data)[split]
    with experiment.create_reader(config, records) as reader:
        return np.asarray(network(reader.load(np.arange(len(records)))[0]))


def load_unwhitened(trained, config, folder):
    """Loads the network of a run with another config, without its whitening."""
    folder.mkdir()
    (folder / "config.json").write_text(config.to_json())
    (folder / "checkpoints").symlink_to(trained / "checkpoints")
    return evaluate.load_run(folder)


def test_a_run_ends_whitened_by_its_training_images(trained, config, tmp_path):
    whitened = evaluate.load_run(trained)
    raw = load_unwhitened(trained, config, tmp_path / "raw")
    unshifted = config.copy_and_resolve_references()
    unshifted.model.embed_shift = 0
    fitted = load_unwhitened(trained, unshifted, tmp_path / "unshifted")
    training = embed_all(fitted.embed, config, "train")
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


def map_at_r(embeddings, labels):
    """Returns MAP@R of leave-one-out retrieval, by loops."""
    values = []
    for query, label in enumerate(labels):
        others = np.delete(np.arange(len(labels)), query)
        order = others[np.argsort(-embeddings[others] @ embeddings[query])]
        is_right = labels[order] == label
        r = is_right.sum()
        precisions = [is_right[: k + 1].mean() for k in range(r) if is_right[k]]
        values.append(sum(precisions) / r)
    return np.mean(values)


def test_the_report_whitens_the_untrained_network_too(trained, config, tmp_path):
    """By a matrix of its own, fitted to its training embeddings."""
    raw = evaluate.load_run(trained).before["untrained"]
    unshifted = config.copy_and_resolve_references()
    unshifted.model.embed_shift = 0
    fitted = load_unwhitened(trained, unshifted, tmp_path / "unshifted")
    training = embed_all(fitted.before["untrained"], config, "train")
    whitened = embed_all(raw, config, "test") @ whitening.fit_whitening(training, POWER)
    whitened /= np.linalg.norm(whitened, axis=1, keepdims=True)
    labels = create_records(config.data)["test"].labels[:, -1]
    results = json.loads((trained / "results.json").read_text())
    values = results["test"]["retrieval"]["map@r"]
    assert values["whitened"] == pytest.approx(map_at_r(whitened, labels), abs=0.01)
    assert values["whitened"] != values["untrained"]
    page = (trained / "report" / "index.html").read_text()
    assert "the untrained network, whitened," in page


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
    (trained / "results.json").unlink()
    loop.train(config, trained)
    assert json.loads((trained / "results.json").read_text()) == results
    assert (trained / "whitening.npz").read_bytes() == before


def copy_network(saved, tmp_path, **arrays):
    """Returns the network of a checkpoint as that of a run in another folder."""
    where = tmp_path / "checkpoints" / saved.where.name
    return dataclasses.replace(saved, where=where, arrays={**saved.arrays, **arrays})


def test_another_network_of_the_same_step_is_not_whitened(
    trained, tmp_path, warnings_logged
):
    saved = checkpoints.read_network(trained)
    shutil.copy(trained / "whitening.npz", tmp_path)
    same = whitening.with_whitening(copy_network(saved, tmp_path))
    assert whitening.is_whitened(same)
    assert not whitening.is_whitened(saved)
    assert not any("whiten" in text for text in warnings_logged)
    name = "params/embedding/kernel/value"
    other = copy_network(saved, tmp_path, **{name: saved.arrays[name] + 1})
    assert not whitening.is_whitened(whitening.with_whitening(other))
    assert "not whitened" in warnings_logged[-1]


@pytest.mark.parametrize("damage", ["no archive", "empty", "another shape"])
def test_a_damaged_file_is_named(trained, tmp_path, damage):
    saved = copy_network(checkpoints.read_network(trained), tmp_path)
    path = tmp_path / "whitening.npz"
    path.write_bytes(b"PK of no archive" if damage == "no archive" else b"")
    if damage == "another shape":
        np.savez(path, network="0", matrix=np.eye(3))
    with pytest.raises(CheckpointError, match=r"whitening\.npz is damaged .* again"):
        whitening.with_whitening(saved)


def test_a_whitening_that_was_deleted_is_missed(trained, tmp_path):
    saved = copy_network(checkpoints.read_network(trained), tmp_path)
    shutil.copy(trained / "run.sha256", tmp_path)
    with pytest.raises(CheckpointError, match=r"whitening\.npz .* lists it: No such"):
        whitening.with_whitening(saved)


def test_features_of_a_run_are_whitened(trained, config):
    splits = {"test": create_records(config.data)["test"]}
    embeddings, ok = features.embed_by_run(trained, splits, config.data.dir)
    assert ok.all()
    with np.load(trained / "test_embeddings.npz") as file:
        np.testing.assert_allclose(embeddings, file["embeddings"], atol=1e-5)


def test_a_finished_run_takes_another_power(trained, config, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(trained, workdir)
    before = np.load(workdir / "whitening.npz")["matrix"]
    changed = config.copy_and_resolve_references()
    changed.model.whitening_power = 0.2
    loop.train(changed, workdir)
    after = np.load(workdir / "whitening.npz")["matrix"]
    assert np.abs(after - before).max() > 0.1


@pytest.mark.parametrize("power", [0.0, 0.2])
def test_a_run_keeps_or_lacks_its_whitening(images, config, tmp_path, power):
    began, now = (shrunk.create_config(images, num_steps=4) for _ in range(2))
    began.model.whitening_power, now.model.whitening_power = power, 0.2 - power
    loop.train(began, tmp_path)
    message = rf"whitening_power was {power} and is {0.2 - power} now"
    with pytest.raises(ConfigError, match=message):
        loop.train(now, tmp_path)


def test_a_network_without_a_whitening_is_refused_before_training(
    config, tmp_path, monkeypatch
):
    monkeypatch.setattr(multiscale, "create_whitening", lambda power, dim: None)
    with pytest.raises(ConfigError, match="has no Whitening module; set it to 0"):
        loop.train(config, tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_without_readable_training_images_nothing_is_whitened(
    trained, config, tmp_path, monkeypatch, warnings_logged
):
    with experiment.create_experiment(config, tmp_path) as run:
        unreadable = lambda indices: (
            np.zeros((len(indices), 16, 16, 3), np.uint8), np.zeros(len(indices), bool)
        )  # fmt: skip
        monkeypatch.setattr(run.readers["train"], "load", unreadable)
        shutil.copy(trained / "whitening.npz", tmp_path)
        assert whitening.whiten(run) == 0
    assert "nothing is whitened" in warnings_logged[-1]
    assert not (tmp_path / "whitening.npz").exists()


def test_long_embeddings_are_refused():
    with pytest.raises(ConfigError, match=r"config\.model\.embedding_dim"):
        models.create_model(
            trunk=dict(name="convnet", widths=(4, 8)),
            image_size=17,
            embedding_dim=5000,
            whitening_power=POWER,
        )


def test_a_run_that_starts_from_it_is_not_whitened_before_its_own_end(
    trained, config, tmp_path
):
    with experiment.create_experiment(config, tmp_path) as run:
        state = init_from.load_state(run.state, trained)
        matrix = np.asarray(state.model_state["whitening"]["matrix"][...])
        np.testing.assert_array_equal(matrix, np.eye(len(matrix)))
