"""OrthoHash: its codes, its loss by hand and its network, alone and on devices."""

import json

from flax import nnx
from helpers import shrunk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeprank_jax import losses, models
from deeprank_jax.errors import ConfigError
from deeprank_jax.export import export_run
from deeprank_jax.inference.model import Model
from deeprank_jax.models.coded import TargetCodes, draw_target_codes
from deeprank_jax.relevance import SameClass
from deeprank_jax.training import checkpoints, loop, tasks

TERMS = dict(supcon={})
CONVNET = dict(trunk=dict(name="convnet", widths=(4, 8)), image_size=16)
VALUES = {
    "task": "classification",
    "task.held_out": 0.3,
    "loss": "ortho_hash",
    "model.embedding_dim": 32,
    "model.embedding_norm": True,
    "evaluation.best_metric": "codes/recall@1",
    "evaluation.evaluators.codes": {},
}


def losses_by_hand(embeddings, codes, labels, *, scale, margin):
    """Returns the losses [B] of embeddings of any length, in float64."""
    values = []
    for row, label in zip(embeddings, labels, strict=True):
        cosines = [
            row @ code / np.linalg.norm(row) / np.linalg.norm(code) for code in codes
        ]
        cosines[label] -= margin
        exponentials = np.exp(scale * np.array(cosines))
        values.append(-np.log(exponentials[label] / exponentials.sum()))
    return np.array(values)


def mean_loss(embeddings, codes, labels, **options):
    loss = losses.create_loss({"name": "ortho_hash", **options})
    head = TargetCodes(*codes.shape, seed=0)
    head.codes[...] = jnp.asarray(codes, jnp.float32)
    norms = jnp.linalg.norm(embeddings, axis=1, keepdims=True)
    cosines = head(embeddings / norms)[:, None]
    batch = {"labels": jnp.asarray(labels)[:, None]}
    return loss(cosines, batch, step=0, key=jax.random.key(0)).mean()


@pytest.mark.parametrize("options", [{}, {"scale": 5.0, "margin": 0.4}])
def test_values_and_gradients_are_those_by_hand(options):
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(6, 8)), rng.integers(0, 5, 6)
    codes = draw_target_codes(5, 8, seed=1)
    published = {"scale": 8.0, "margin": 0.2, **options}
    by_hand = lambda x: losses_by_hand(x, codes, labels, **published).mean()
    value, gradient = jax.value_and_grad(mean_loss)(
        jnp.asarray(rows, jnp.float32), codes, labels, **options
    )
    assert value == pytest.approx(by_hand(rows), rel=1e-5)
    differences = np.zeros_like(rows)
    for index in np.ndindex(*rows.shape):
        step = np.zeros_like(rows)
        step[index] = 1e-6
        differences[index] = (by_hand(rows + step) - by_hand(rows - step)) / 2e-6
    np.testing.assert_allclose(gradient, differences, atol=1e-5)


def test_an_embedding_on_its_code_has_the_least_loss():
    codes = draw_target_codes(8, 16, seed=0)
    at_codes = mean_loss(jnp.asarray(codes), codes, np.arange(8))
    # All other cosines are 0.
    expected = np.log(1 + 7 * np.exp(-8 * (1 - 0.2)))
    assert at_codes == pytest.approx(expected, rel=1e-5)
    assert mean_loss(jnp.asarray(codes), codes, (np.arange(8) + 1) % 8) > expected


@pytest.mark.parametrize("num_classes", [2, 31, 32])
def test_codes_are_orthogonal_where_there_are_enough(num_classes):
    codes = draw_target_codes(num_classes, 32, seed=3)
    assert set(np.unique(codes)) == {-1, 1}
    np.testing.assert_array_equal(codes @ codes.T, 32 * np.eye(num_classes))
    other = draw_target_codes(num_classes, 32, seed=4)
    assert np.any(codes != other)
    np.testing.assert_array_equal(codes, draw_target_codes(num_classes, 32, seed=3))


def test_no_bit_of_orthogonal_codes_is_always_the_same():
    codes = [draw_target_codes(32, 32, seed=seed)[0] for seed in range(20)]
    assert np.all(np.abs(np.mean(codes, axis=0)) < 1)


@pytest.mark.parametrize(
    ("num_classes", "num_bits"),
    [(500, 64), (5, 24), (20, 6), (1000, 16), (60, 6), (8, 3)],
)
def test_other_codes_are_drawn_bit_by_bit(num_classes, num_bits):
    codes = draw_target_codes(num_classes, num_bits, seed=0)
    assert codes.shape == (num_classes, num_bits)
    assert set(np.unique(codes)) == {-1, 1}
    assert len(np.unique(codes, axis=0)) == num_classes
    np.testing.assert_array_equal(
        codes, draw_target_codes(num_classes, num_bits, seed=0)
    )
    # Six deviations of a mean.
    assert abs(codes.mean()) < 6 / codes.size**0.5


def test_the_network_compares_its_embeddings_with_the_codes():
    images = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3)).astype(np.uint8)
    options = dict(embedding_dim=8, embedding_norm=True, seed=2)
    model = models.create_model(**CONVNET, **options, head=3)
    plain = models.create_model(**CONVNET, **options)
    model.eval()
    plain.eval()
    embeddings = np.asarray(plain.embed(images))
    np.testing.assert_array_equal(model.embed(images), embeddings)
    codes = draw_target_codes(3, 8, seed=2)
    np.testing.assert_allclose(model(images), embeddings @ codes.T / 8**0.5, atol=1e-6)
    assert not any("head" in path for path, _ in nnx.to_flat_state(
        nnx.state(model, nnx.Param)
    ))  # fmt: skip


def test_a_number_of_a_normalised_embedding_is_above_0_for_half_of_a_batch():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (64, 16, 16, 3)).astype(np.uint8)
    shares = {}
    for norm in (False, True):
        model = models.create_model(**CONVNET, embedding_dim=8, embedding_norm=norm)
        model.embedding.bias[...] = jnp.arange(8.0)
        embeddings = np.asarray(model(images))
        np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
        shares[norm] = np.mean(embeddings > 0, axis=0)
    assert np.all(np.abs(shares[True] - 0.5) < 0.25)
    assert np.all(shares[False][1:] == 1)


def test_devices_normalise_embeddings_together():
    images = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3))
    options = dict(embedding_dim=8, embedding_norm=True, head=4)
    outputs = {}
    for axis_name in (None, "data"):
        model = models.create_model(**CONVNET, **options, axis_name=axis_name)
        graphdef, state = nnx.split(model)

        def embed(images, graphdef=graphdef, state=state):
            return nnx.merge(graphdef, state, copy=True)(images)

        outputs[axis_name] = embed
    split = jnp.asarray(images, jnp.uint8).reshape(4, 4, 16, 16, 3)
    together = jax.vmap(outputs["data"], axis_name="data")(split).reshape(16, -1)
    np.testing.assert_allclose(
        together, outputs[None](images.astype(np.uint8)), atol=1e-4
    )


def test_every_network_of_an_ensemble_normalises_its_embedding():
    images = np.random.default_rng(0).integers(0, 256, (16, 16, 16, 3))
    other = dict(trunk=CONVNET["trunk"], embedding_dim=6, subsample=2)
    options = dict(embedding_dim=8, embedding_norm=True, ensemble=(other,))
    split = jnp.asarray(images, jnp.uint8).reshape(4, 4, 16, 16, 3)
    outputs = {}
    for axis_name in (None, "data"):
        model = models.create_model(**CONVNET, **options, axis_name=axis_name)
        model.others[0].embedding.bias[...] = jnp.arange(6.0)
        graphdef, state = nnx.split(model)
        embed = lambda x, g=graphdef, s=state: nnx.merge(g, s, copy=True)(x)
        outputs[axis_name] = (
            jax.vmap(embed, axis_name="data")(split).reshape(16, -1)
            if axis_name
            else embed(split.reshape(16, 16, 16, 3))
        )
    shares = np.mean(np.asarray(outputs[None]) > 0, axis=0)
    assert shares.shape == (14,)
    assert np.all((shares > 0) & (shares < 1))
    np.testing.assert_allclose(outputs["data"], outputs[None], atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(margin=-0.1), r"config\.loss\.margin must be in \[0, 2\], got -0\.1"),
        (dict(margin=2.5), r"config\.loss\.margin must be in \[0, 2\], got 2\.5"),
        (dict(scale=0.0), r"config\.loss\.scale must be above 0, got 0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        losses.create_loss({"name": "ortho_hash", **options})


def test_codes_without_a_bit_are_refused():
    with pytest.raises(ValueError, match="num_bits must be at least 1, got 0"):
        draw_target_codes(4, 0, seed=0)


@pytest.mark.parametrize(
    "values",
    [
        {k: v for k, v in VALUES.items() if not k.startswith("evaluation")},
        {"loss": dict(name="hashing", terms=TERMS)},
        {"loss": dict(name="weighted_sum", terms=dict(hashing=dict(terms=TERMS)))},
    ],
)
def test_whitening_of_codes_is_refused(tmp_path, values):
    images = shrunk.write_images(tmp_path / "images")
    values = {**values, "model.whitening_power": 0.4}
    message = (
        r"config\.model\.whitening_power=0\.4 would turn the axes .* "
        r"config\.loss\.name='\w+' .*--config\.model\.whitening_power=0\."
    )
    with pytest.raises(ConfigError, match=message):
        loop.train(shrunk.create_config(images, **values), tmp_path / "run")


def test_codes_of_an_ensemble_are_refused(tmp_path):
    config = shrunk.create_config(tmp_path, **VALUES)
    config.model.ensemble = (shrunk.OTHER,)
    with pytest.raises(
        ConfigError, match=r"ensemble is for .*set it to \(\) for .*ortho"
    ):
        tasks.create_task(config, SameClass())


def test_more_classes_than_codes_are_refused():
    message = r"config\.model\.embedding_dim=3 gives 8 codes for 9 classes.* least 4\."
    with pytest.raises(ConfigError, match=message):
        models.create_model(**CONVNET, embedding_dim=3, head=9)


@pytest.mark.usefixtures("without_pictures")
def test_a_run_learns_codes_and_is_exported_without_those_of_classes(tmp_path):
    images = shrunk.write_images(tmp_path / "images", num_classes=12)
    more = {"num_steps": 24, "batch_size": 16, "optimizer.learning_rate": 0.03}
    config = shrunk.create_config(images, **VALUES, **more)
    workdir = tmp_path / "run"
    loop.train(config, workdir)
    results = json.loads((workdir / "results.json").read_text())
    top1 = results["held out"]["classification"]["top1"]
    assert top1["model"] > top1["untrained"] + 0.2
    recall = results["test"]["codes"]["recall@1"]
    assert 0 < recall["model"] <= 1
    saved = checkpoints.read_network(workdir).arrays
    codes = saved["model_state/head/codes/value"]
    np.testing.assert_array_equal(
        codes, draw_target_codes(len(codes), 32, seed=config.seed)
    )
    model = Model(export_run(workdir, tmp_path / "model"))
    with np.load(workdir / "test_embeddings.npz") as file:
        assert file["embeddings"].shape[1] == model.embedding_dim == 32
