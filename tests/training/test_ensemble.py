"""Ensembles: trained, continued, exported and started from another run."""

from helpers import shrunk
from helpers.stopped import train_until_saved
import jax
import numpy as np
import pytest

from deeprank_jax.distributed import devices
from deeprank_jax.errors import ConfigError
from deeprank_jax.export.run import export_run
from deeprank_jax.inference.model import Model
from deeprank_jax.models import layers
from deeprank_jax.relevance import SameClass
from deeprank_jax.training import (
    checkpoints,
    experiment,
    loop,
    optimizers,
    tasks,
    whitening,
)

VALUES = {
    "loss": dict(name="multi_similarity", memory_size=16),
    "model.embed_flip": True,
    "model.whitening_power": 0.4,
    "optimizer.ema_decay": 0.7,
    "accumulate_steps": 2,
    "checkpoint_every": 4,
    "eval_every": 8,
}


def create_config(images, *, ensemble=(shrunk.OTHER,), **values):
    config = shrunk.create_config(images, **{**VALUES, **values})
    config.model.ensemble = ensemble
    return config


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return shrunk.write_images(tmp_path_factory.mktemp("images"), num_classes=12)


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    loop.train(create_config(images), workdir)
    return workdir


def arrays_of(workdir):
    return checkpoints.read_network(workdir).arrays


def test_a_run_that_was_stopped_ends_with_the_same_bits(images, trained, tmp_path):
    config = create_config(images)
    train_until_saved(config, tmp_path, 4)
    loop.train(config, tmp_path)
    expected, actual = arrays_of(trained), arrays_of(tmp_path)
    assert expected.keys() == actual.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(actual[name], array, err_msg=name)


def test_every_network_learns(images, trained, tmp_path):
    with experiment.create_experiment(create_config(images), tmp_path) as run:
        initial = jax.device_get(run.create_initial_state().params)
        first = jax.tree.leaves(initial["trunk"])
        other = jax.tree.leaves(initial["others"])
    learned = arrays_of(trained)
    for part, before in (("trunk", first), ("others", other)):
        after = [x for name, x in learned.items() if name.startswith(f"params/{part}/")]
        assert len(after) == len(before)
        sizes = lambda arrays: sorted(float(np.square(x).sum()) for x in arrays)
        assert np.abs(np.subtract(sizes(after), sizes(before))).max() > 1e-3


def test_the_exported_model_embeds_as_the_run(images, trained, tmp_path):
    model = Model(export_run(trained, tmp_path / "model"))
    pixels = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)).astype(np.uint8)
    embeddings = model.embed(list(pixels))
    with experiment.create_experiment(create_config(images), trained) as run:
        run.restore(run.checkpoints.best_step())
        whitening.restore_whitening(run)
        np.testing.assert_allclose(embeddings, run.embed(run.state, pixels), atol=1e-5)


def test_the_report_names_the_other_network(images, trained):
    page = (trained / "report" / "index.html").read_text()
    assert "beside it convnet, 6 dimensions" in page
    assert "of each of 2 networks" in page


def test_trunk_scale_0_freezes_the_first_trunk_alone(images, tmp_path):
    values = {"optimizer.trunk_scale": 0.0, "num_steps": 2, "schedule.warmup_steps": 0}
    with experiment.create_experiment(create_config(images, **values), tmp_path) as run:
        before = jax.device_get(run.state)
        with run.stream(0) as stream:
            for _, batch in zip(range(2), stream, strict=False):
                on_device = experiment.device_batch(batch)
                run.state, _ = run.train_step(run.state, on_device)
        after = jax.device_get(run.state)
    for name, changes in (("trunk", False), ("others", True)):
        for kind in ("params", "model_state"):
            pair = [getattr(x, kind)[name] for x in (before, after)]
            if name == "others":
                pair = [x[0]["trunk"] for x in pair]
            pair = [jax.tree.leaves(x) for x in pair]
            changed = [not np.array_equal(a, b) for a, b in zip(*pair, strict=True)]
            assert changed
            assert all(changed) if changes else not any(changed), (name, kind)


def test_the_scale_of_the_trunk_is_that_of_the_first():
    kernel = {"kernel": np.ones(1)}
    params = {"trunk": kernel, "others": {0: {"trunk": kernel, "embedding": kernel}}}
    mask = optimizers.trunk_mask(params)
    assert mask["trunk"]["kernel"]
    assert not any(jax.tree.leaves(mask["others"]))


def test_only_the_anchor_and_its_positives_are_mixed(images, tmp_path):
    off = {name: 0 for name in ("shift_pixels", "color_jitter", "zoom")}
    values = {f"data.augment.{name}": value for name, value in off.items()}
    values |= {"data.augment.flip": False, "data.augment.mixing": 1.0}
    with experiment.create_experiment(create_config(images, **values), tmp_path) as run:
        with run.stream(0) as stream:
            batch = next(iter(stream))
        plain, _ = run.readers["train"].load(batch.groups.indices.reshape(-1))
    same = (batch.images.reshape(plain.shape) == plain).all(axis=(1, 2, 3))
    same = same.reshape(batch.groups.indices.shape)
    assert same[:, 2:].all()
    assert same[:, :2].mean() < 0.2


def test_an_ensemble_starts_from_a_run_of_its_first_network(images, tmp_path):
    values = {"model.whitening_power": 0.0}
    alone = create_config(images, ensemble=(), **values)
    loop.train(alone, tmp_path / "alone")
    start = str(tmp_path / "alone")
    config = create_config(images, **values, init_from=start)
    with experiment.create_experiment(config, tmp_path / "both") as run:
        pixels = np.full((2, 16, 16, 3), 7, np.uint8)
        joined = np.asarray(run.embed(run.state, pixels))
    with experiment.create_experiment(alone, tmp_path / "alone") as run:
        run.restore(8)
        expected = np.asarray(run.embed(run.state, pixels))
    first = layers.l2_normalize(joined[:, : expected.shape[1]])
    np.testing.assert_allclose(first, expected, atol=1e-5)


def test_options_of_a_network_are_checked_before_training(images, tmp_path):
    config = create_config(images, ensemble=({"trunk": shrunk.OTHER["trunk"]},))
    with pytest.raises(ConfigError, match=r"ensemble\[0\] lacks 'embedding_dim'"):
        loop.train(config, tmp_path)


@pytest.mark.parametrize("first_collapses", [False, True])
def test_the_network_nearest_to_a_collapse_counts(images, first_collapses):
    config = create_config(images)
    objective = tasks.create_task(config, SameClass()).objective()
    rng = np.random.default_rng(0)
    sizes = ((8, 2, 64), (8, 2, 6))
    parts = [
        layers.l2_normalize(
            np.ones(size) if (i == 0) == first_collapses else rng.normal(size=size)
        )
        for i, size in enumerate(sizes)
    ]
    joined = layers.l2_normalize(np.concatenate(parts, axis=-1))
    batch = {"attributes": np.repeat(np.arange(8), 2).reshape(8, 2, 1)}

    def measure(outputs, batch):
        key = jax.random.key(0)
        return objective(outputs, batch, step=np.int32(0), key=key)[1]

    add = lambda x: x[None]
    metrics = jax.vmap(measure, axis_name=devices.DATA_AXIS)(
        add(joined), jax.tree.map(add, batch)
    )
    assert float(metrics["mean_distance"][0]) < 1e-5
    assert float(metrics["effective_rank"][0]) < 1.01
