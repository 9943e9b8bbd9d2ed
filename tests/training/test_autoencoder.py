"""Runs of the autoencoder: network, noise, validation, export, runs that stop."""

import json

from flax import nnx
from helpers import shrunk
from helpers.stopped import train_until_saved
import jax
import numpy as np
import pytest

from deeprank_jax import models
from deeprank_jax.data import pixel_noise
from deeprank_jax.errors import ConfigError
from deeprank_jax.experiments import evaluate
from deeprank_jax.export import export_run
from deeprank_jax.inference.artifact import read_weights
from deeprank_jax.inference.model import Model
from deeprank_jax.models import autoencoder
from deeprank_jax.training import checkpoints, experiment, loop, step, tasks

VALUES = {
    "task": "autoencoder",
    "task.widths": (8, 4),
    "loss": "reconstruction",
    "model.whitening_power": 0.5,
    "model.embed_shift": 1,
    "evaluation.evaluators.noise": {},
}


def create_config(images, **values):
    return shrunk.create_config(images, **{**VALUES, **values})


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return shrunk.write_images(tmp_path_factory.mktemp("images"), num_classes=12)


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
    """Returns the folder of a run that never stopped."""
    workdir = tmp_path_factory.mktemp("autoencoder") / "run"
    loop.train(create_config(images), workdir)
    return workdir


def create_network(head=None, image_size=16, **options):
    return models.create_model(
        trunk=dict(name="convnet", widths=(4, 8)),
        image_size=image_size,
        embedding_dim=6,
        head=head,
        **options,
    )


def random_pixels(size, num=5):
    shape = (num, size, size, 3)
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def test_without_its_decoder_it_is_the_ranking_network():
    pixels = random_pixels(16)
    network = create_network(models.DecoderSizes((7, 5), 2, 0.1))
    plain = create_network()
    assert len(jax.tree.leaves(nnx.state(network).pop("decoder"))) == 2 + 2 * 4 + 1 + 2
    for each in (network, plain):
        each.eval()
    np.testing.assert_array_equal(network.embed(pixels), plain.embed(pixels))


@pytest.mark.parametrize(
    ("image_size", "reduce", "widths", "side"),
    [
        (16, 2, (7, 5), 8),
        (16, 1, (7,), 16),
        (17, 2, (7, 5, 3), 9),
        (19, 1, (4, 4), 19),
        (30, 4, (6, 5, 4, 3), 8),
        (5, 5, (3,), 1),
    ],
)
def test_a_reconstruction_has_the_size_of_its_target(image_size, reduce, widths, side):
    sizes = models.DecoderSizes(widths, reduce)
    network = models.create_abstract(lambda: create_network(sizes, image_size))
    outputs = nnx.eval_shape(lambda x, y: x(y), network, random_pixels(image_size))
    assert outputs.shape == (5, side * side * 3)
    assert outputs.dtype == np.float32
    decode = lambda x: x.decoder(np.eye(6, dtype=np.float32))
    assert nnx.eval_shape(decode, network).shape == (6, side, side, 3)


def test_the_decoder_by_hand():
    network = create_network(models.DecoderSizes((4,), 2), image_size=6)
    network.eval()
    decoder = network.decoder
    x = np.random.default_rng(0).normal(size=(2, 6))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    hidden = x * np.sqrt(6) @ np.float64(decoder.linear.kernel[...])
    # BatchNorm before the first step is the identity, but for its epsilon.
    hidden = np.maximum(hidden.reshape(2, 2, 2, 4), 0) / np.sqrt(1 + 1e-5)
    doubled = hidden.repeat(2, axis=1).repeat(2, axis=2)[:, :3, :3]
    padded = np.pad(doubled, ((0, 0), (1, 1), (1, 1), (0, 0)))
    kernel = np.float64(decoder.last.kernel[...])
    expected = 0.5 + sum(
        padded[:, i : i + 3, j : j + 3] @ kernel[i, j]
        for i in range(3)
        for j in range(3)
    )
    computed = decoder(x.astype(np.float32))
    np.testing.assert_allclose(computed, expected, rtol=1e-4, atol=1e-5)


def test_images_are_nearly_grey_before_training():
    network = create_network(models.DecoderSizes((32, 32), 1), image_size=16)
    images = network.decoder(np.eye(6, dtype=np.float32))
    assert images.mean() == pytest.approx(0.5, abs=0.05)
    assert 0.03 < images.std() < 0.2


def test_the_decoder_reads_the_embedding_alone():
    network = create_network(models.DecoderSizes((7, 5)))
    network.eval()
    pixels = random_pixels(16)
    outputs = network.decoder(network.embed_once(pixels)).reshape(5, -1)
    np.testing.assert_allclose(network(pixels), outputs, rtol=1e-5, atol=1e-6)


def test_noise_is_of_training_alone():
    network = create_network(models.DecoderSizes((7, 5), 2, 0.2))
    network.eval()
    pixels, key = random_pixels(16), jax.random.key(0)
    clean = np.asarray(network(pixels))
    np.testing.assert_array_equal(network(pixels), clean)
    noisy = np.asarray(network(pixels, key))
    np.testing.assert_array_equal(network(pixels, key), noisy)
    assert np.all(np.any(noisy != clean, axis=1))
    assert np.any(network(pixels, jax.random.key(1)) != noisy)
    without = create_network(models.DecoderSizes((7, 5), 2, 0.0))
    without.eval()
    np.testing.assert_array_equal(without(pixels, key), clean)


def test_the_noise_has_its_deviation_and_stays_in_the_range():
    key = jax.random.key(3)
    grey = np.full((8, 32, 32, 3), 128, np.uint8)
    gaps = np.asarray(autoencoder.add_noise(grey, 0.1, key)) - 128
    assert gaps.std() == pytest.approx(25.5, rel=0.03)
    assert gaps.mean() == pytest.approx(0, abs=1)
    for value in (0, 255):
        noisy = autoencoder.add_noise(np.full_like(grey, value), 0.1, key)
        assert noisy.min() >= 0
        assert noisy.max() <= 255
        assert np.mean(noisy == value) == pytest.approx(0.5, abs=0.02)


def test_noise_of_a_record_is_always_the_same():
    grey = np.full((6, 32, 32, 3), 128, np.uint8)
    whole = pixel_noise.add_noise(grey, 0.1, np.arange(6))
    part = pixel_noise.add_noise(grey[:2], 0.1, np.array([4, 1]))
    np.testing.assert_array_equal(part, whole[[4, 1]])
    assert len(np.unique(whole.reshape(6, -1), axis=0)) == 6
    gaps = whole - 128.0
    assert gaps.std() == pytest.approx(25.5, rel=0.03)
    doubled = pixel_noise.add_noise(grey, 0.2, np.arange(6)) - 128.0
    inside = np.abs(doubled) < 120
    assert np.abs(doubled - 2 * gaps)[inside].max() <= 1.5
    np.testing.assert_array_equal(pixel_noise.add_noise(grey, 0, range(6)), grey)
    dark = pixel_noise.add_noise(np.zeros_like(grey), 1.0, np.arange(6))
    assert np.mean(dark == 0) == pytest.approx(0.5, abs=0.02)


def test_validation_is_the_error_of_validation_images(images, tmp_path):
    config = create_config(images, **{"evaluation.batch_size": 7})
    with experiment.create_experiment(config, tmp_path) as run:
        values = run.validate_task(run.state)
        records = run.records["validation"]
        indices = np.arange(len(records))
        pixels, _ = run.readers["validation"].load(indices)
        noisy = pixel_noise.add_noise(pixels, 0.1, indices)
        # The network at the target's size: each pixel a mean of its neighbours.
        weights = reduction(16)
        targets = np.einsum("yi,xj,nijc->nyxc", weights, weights, pixels / 255.0)
        for name, seen in (("psnr", pixels), ("psnr_noisy", noisy)):
            outputs = np.float64(run.logits(run.state, seen)).reshape(targets.shape)
            expected = -10 * np.log10(np.mean(np.square(outputs - targets)))
            assert values[f"autoencoder/{name}"] == pytest.approx(expected, rel=1e-4)
    assert values["autoencoder/psnr"] != values["autoencoder/psnr_noisy"]


def reduction(size):
    """Returns weights `[size / 2, size]` of a linear filter, twice as wide."""
    places = (np.arange(size) + 0.5) / 2 - 0.5
    weights = np.maximum(1 - np.abs(np.arange(size // 2)[:, None] - places), 0)
    return weights / weights.sum(axis=1, keepdims=True)


def test_results_log_and_report_have_the_reconstruction(trained):
    results = json.loads((trained / "results.json").read_text())
    of_task = results["validation"]["autoencoder"]
    assert of_task.keys() == {"psnr", "psnr_noisy"}
    assert of_task["psnr"].keys() == {"model", "untrained"}
    assert of_task["psnr"]["model"] > of_task["psnr"]["untrained"]
    assert results["test"]["noise"].keys() == {
        f"{name}_{sigma}" for name in ("recall@1", "cosine") for sigma in (0.1, 0.2)
    }
    lines = (trained / "metrics.jsonl").read_text().splitlines()
    names = {name for line in lines for name in json.loads(line)}
    assert {
        "train/explained_variance",
        "validation/autoencoder/psnr",
        "validation/noise/recall@1_0.1",
    } <= names
    page = (trained / "report" / "index.html").read_text(encoding="utf-8")
    assert "mean squared error of the reconstruction, 8 pixels, noise 0.1" in page
    assert "in training alone a decoder of 8 and 4 channels" in page
    section = page.split('id="reconstructions"')[1].split("</section>")[0]
    for title in ("image", "with noise", "restored", "restored from noise"):
        assert f'<th scope="row">{title}</th>' in section
    assert section.count("<img") == 4 * 12


def test_a_run_is_exported_without_its_decoder(trained, tmp_path, images):
    saved = checkpoints.read_network(trained)
    assert saved.arrays["params/decoder/linear/kernel/value"].shape[1] == 2 * 2 * 8
    assert "model_state/decoder/norms/0/mean/value" in saved.arrays
    model = Model(export_run(trained, tmp_path / "model", force_threshold=True))
    names = read_weights(model.artifact).keys()
    assert any("embedding" in name for name in names)
    assert not any("decoder" in name for name in names)
    card = (tmp_path / "model" / "README.md").read_text()
    assert "without labels, by restoring images from their embeddings" in card
    config = create_config(images)
    records = experiment.create_records(config.data)["test"]
    with experiment.create_reader(config, records) as reader:
        embeddings = model.embed_prepared(reader.load(np.arange(len(records)))[0])
    with np.load(trained / "test_embeddings.npz") as file:
        np.testing.assert_allclose(embeddings, file["embeddings"], atol=1e-5)
    network = evaluate.load_model(tmp_path / "model")
    measured = evaluate.evaluate(network, evaluate.open_split(config)).results["noise"]
    expected = json.loads((trained / "results.json").read_text())["test"]["noise"]
    for name, values in expected.items():
        for system in ("model", "pixels"):
            assert measured[name][system] == pytest.approx(values[system], abs=1e-4)


def test_a_run_that_stopped_ends_with_the_same_bits(images, trained, tmp_path):
    config = create_config(images)
    train_until_saved(config, tmp_path, 4)
    loop.train(config, tmp_path)
    for name in ("results.json", "intervals.json"):
        assert (tmp_path / name).read_bytes() == (trained / name).read_bytes()


def test_parts_of_a_batch_and_less_memory_train(images, tmp_path):
    options = {"accumulate_steps": 2, "model.remat": True, "model.dtype": "bfloat16"}
    options["schedule.warmup_steps"] = 0  # The first step then changes weights.
    with experiment.create_experiment(
        create_config(images, **options), tmp_path
    ) as run:
        with run.stream(0) as stream:
            batch = experiment.device_batch(next(stream))
        weights = lambda state: np.asarray(
            step.network_arrays(state)["params/decoder/last/kernel/value"]
        )
        before = weights(run.state)  # A step takes over its memory.
        state, metrics = run.train_step(run.state, batch)
    assert np.isfinite(metrics["loss"])
    assert np.any(weights(state) != before)


def test_a_ranking_run_starts_from_its_network(images, trained, tmp_path):
    options = {"init_from": str(trained), "model.whitening_power": 0.5}
    config = shrunk.create_config(images, **options)
    with experiment.create_experiment(config, tmp_path) as run:
        start = step.network_arrays(run.state)
        assert not any("/decoder/" in name for name in start)
    saved = checkpoints.read_network(trained).arrays
    for name, array in start.items():
        if name.startswith("params/"):
            np.testing.assert_array_equal(array, saved[name])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"loss": "supcon"}, "supcon.* takes embeddings.*autoencoder.*reconstruction"),
        ({"loss": "nt_xent"}, "nt_xent.* takes projections.*reconstruction"),
        ({"task": "ranking"}, "reconstruction.* takes images.*ranking"),
        ({"task": "classification"}, "reconstruction.* takes images.*classification"),
        ({"task": "self_supervised"}, "reconstruction.* takes images"),
        ({"task.noise": -0.1}, r"config\.task\.noise must be from 0 to 1.*-0\.1"),
        ({"task.noise": 25.0}, r"config\.task\.noise must be from 0 to 1.*25"),
        ({"task.widths": ()}, r"config\.task\.widths must hold the channels"),
        ({"task.widths": (8, 0)}, r"config\.task\.widths must be whole numbers"),
        ({"task.reduce": 0}, r"config\.task\.reduce must be a whole number"),
        ({"task.reduce": 17}, r"config\.task\.reduce must be at most .*image_size, 16"),
        ({"model.ensemble": ({},)}, r'ensemble is for config\.task\.name="ranking"'),
        ({"optimizer.trunk_scale": 0.0}, r"trunk_scale=0 freezes.* trains with noise"),
    ],
)  # fmt: skip
def test_a_config_that_does_not_fit_is_refused(images, values, message):
    values = {**VALUES, **values}
    if values["task"] != "autoencoder":
        values = {x: v for x, v in values.items() if not x.startswith("task.")}
    config = shrunk.create_config(images, **values)
    with pytest.raises(ConfigError, match=message):
        tasks.create_task(config, experiment.create_run_relevance(config))
