"""Every config file trains, and its step lowers for the accelerators it is for."""

import importlib
import json
import pathlib

import jax
import jax.numpy as jnp
import pytest
import shrunk
import tensorflow_datasets as tfds

from deeprank_jax import experiment, parallel, train, train_step

ROOT = pathlib.Path(__file__).parents[1]
NAMES = sorted(p.stem for p in (ROOT / "configs").glob("*.py") if p.stem != "__init__")
NAMES.remove("base")


def load(name):
    config = importlib.import_module(f"configs.{name}").get_config()
    config.lock()
    return config


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_train_step_lowers(name, platform):
    config = load(name)
    structure = {}

    def create_state():
        structure["graphdef"], structure["tx"], state = experiment.create_network(
            config
        )
        return state

    state = jax.eval_shape(create_state)
    relevance = experiment.create_run_relevance(config)
    step = train_step.make_train_step(
        structure["graphdef"],
        structure["tx"],
        train_step.make_ranking(experiment.make_run_loss(config, relevance)),
    )
    # The mapped step itself cannot be exported; this is the same computation.
    mapped = jax.jit(
        jax.vmap(step, in_axes=(None, 0), out_axes=None, axis_name=parallel.DATA_AXIS)
    )
    size, num_levels = config.data.image_size, max(1, len(config.relevance.levels))
    batch = {
        "images": jax.ShapeDtypeStruct(
            (2, config.batch_size // 2, 3, size, size, 3), jnp.uint8
        ),
        "attributes": jax.ShapeDtypeStruct(
            (2, config.batch_size // 2, 3, num_levels), jnp.int32
        ),
    }
    exported = jax.export.export(mapped, platforms=[platform])(state, batch)
    assert exported.platforms == (platform,)
    assert "reduce_window" in exported.mlir_module()  # Not the CPU's form.


def mock_tfds(name):
    """Returns a context in which TFDS makes up the images of a config's dataset."""
    return tfds.testing.mock_data(num_examples=64)


@pytest.mark.parametrize("name", NAMES)
def test_trains_two_steps(name, tmp_path):
    config = shrunk.shrink(load(name), num_steps=2, **{"schedule.warmup_steps": 1})
    if config.data.name == "folder":
        config.data.dir = str(shrunk.write_images(tmp_path / "images"))
        report = train.train(config, tmp_path / "run")
    elif config.data.name == "manifest":
        images = shrunk.write_images(tmp_path / "images")
        lines = [
            f"{path.relative_to(tmp_path)},{path.parent.name}"
            for path in sorted(images.rglob("*.png"))
        ]
        manifest = tmp_path / "images.csv"
        manifest.write_text("\n".join(["path,level_1", *lines]))
        config.data.dir = str(manifest)
        report = train.train(config, tmp_path / "run")
    elif config.data.name == "emoji":
        config.data.dir = str(tmp_path / "data")
        report = train.train(config, tmp_path / "run")
    else:
        with mock_tfds(config.data.name):
            report = train.train(config, tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert set(results) == {"validation", "test"}
    for split in results.values():
        assert set(split) == {"retrieval", "triplets"}
        assert set(split["retrieval"]["recall@1"]) == {"model", "untrained", "pixels"}
        assert split["triplets"]["num_triplets"]["model"] > 0
    assert report.stat().st_size < 10 * 2**20
