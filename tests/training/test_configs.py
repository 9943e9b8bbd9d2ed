"""Every config file trains, and its step lowers for the accelerators it is for."""

import importlib
import json
import pathlib

from helpers import shrunk
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds

from deeprank_jax.data.records import Records
from deeprank_jax.distributed import devices
from deeprank_jax.sampling import create
from deeprank_jax.training import experiment, loop, network, tasks
from deeprank_jax.training import step as step_lib

ROOT = pathlib.Path(__file__).parents[2]
NAMES = sorted(p.stem for p in (ROOT / "configs").glob("*.py") if p.stem != "__init__")
NAMES.remove("base")
# Configs of other data, with the step of another config.
SAME_STEP = {"manifest"}
# Plans of experiments, which train the network of another config: for check-full.
PLANS = {name for name in NAMES if name.startswith(("ablation", "paper_table"))}
# The networks of other configs with another loss or relevance: for check-full.
LOWERS_LATE = {
    "digits_attributes",
    "emoji_autoencoder",
    "emoji_codes",
    "emoji_lite0",
    "emoji_matryoshka",
    "landmarks",
    "pairs",
    "photo_views",
    "sop",
    "tiles",
    "unlabelled",
} | PLANS
# A network that other tests train, and that takes half a minute: for check-full.
TRAINS_LATE = {"keras_vgg16"}
# The configs that train Lite0 here: its step takes a minute to compile.
TRAIN_LITE0 = {"folder"}


def load(name):
    config = importlib.import_module(f"deeprank_jax.configs.{name}").get_config()
    config.lock()
    return config


def create_attribute_records(names):
    """Returns two records that differ in each attribute."""
    return Records(
        name="made up",
        labels=np.array([[0] * len(names), [1] * len(names)], np.int32),
        level_names=tuple(names),
        label_names=(("a", "b"),) * len(names),
        read=lambda index: b"",
        describe=str,
        columns={"original": np.arange(2, dtype=np.int32)},
    )


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.full] if name in LOWERS_LATE else [])
        for name in NAMES
        if name not in SAME_STEP
    ],
)
def test_train_step_lowers(name):
    config = load(name)
    config.unlock()
    config.model.weights = ""  # A file that may not be there; shapes are the same.
    if config.task.name == "pairs":
        config.task.file = "pairs.csv"  # Read with the images.
    if config.batch_size is None:  # Chosen by the data.
        config.update(num_steps=200, batch_size=16)
        config.data.image_size, config.sampler.positives_per_anchor = 96, 3
    task = tasks.create_task(config, experiment.create_run_relevance(config))
    num_images = 1
    if task.draws_triplets:
        num_images += sum(create.group_size(config).values())
    num_classes = 2 if task.needs_records else None
    num_heads = 1
    if config.task.name == "attributes":
        task.prepare({"train": create_attribute_records(config.task.weights)})
        num_classes, num_heads = task.labelled.num_outputs, len(task.labelled.heads)
    create_model = lambda: network.create_model(config, num_classes)
    if config.task.name in ("self_supervised", "pairs"):
        num_images, create_model = 2, task.create_model
    is_embedding = config.task.get("features") == "embedding"
    if is_embedding or config.task.name == "autoencoder":
        create_model = task.create_model
    structure = {}

    def create_state():
        structure["graphdef"], structure["tx"], state = network.create_network(
            config, create_model
        )
        return state

    state = jax.eval_shape(create_state)
    step = step_lib.make_train_step(
        structure["graphdef"], structure["tx"], task.objective()
    )
    # The mapped step itself cannot be exported; this is the same computation.
    mapped = jax.jit(
        jax.vmap(step, in_axes=(None, 0), out_axes=None, axis_name=devices.DATA_AXIS)
    )
    size, num_levels = (
        config.data.image_size,
        max(1, len(config.relevance.get("levels", ()))),
    )
    if config.relevance.name == "place":  # Category, image, row and column.
        num_levels = 4
    batch = {
        "images": jax.ShapeDtypeStruct(
            (2, config.batch_size // 2, num_images, size, size, 3), jnp.uint8
        ),
        "labels": jax.ShapeDtypeStruct(
            (2, config.batch_size // 2, num_heads), jnp.int32
        ),
        "instances": jax.ShapeDtypeStruct(
            (2, config.batch_size // 2, num_images), jnp.int32
        ),
        "is_similar": jax.ShapeDtypeStruct((2, config.batch_size // 2), jnp.int32),
        "attributes": jax.ShapeDtypeStruct(
            (2, config.batch_size // 2, num_images, num_levels), jnp.int32
        ),
    }
    platforms = ("cuda", "tpu")
    exported = jax.export.export(mapped, platforms=platforms)(state, batch)
    assert exported.platforms == platforms
    module = exported.mlir_module()  # Not the CPU's form.
    assert "reduce_window" in module or "feature_group_count = 32" in module


def mock_tfds(name):
    """Returns a context in which TFDS makes up the images of a config's dataset."""
    # Of a thousand classes some must have several images.
    return tfds.testing.mock_data(num_examples=600 if name == "imagenet2012" else 64)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=[pytest.mark.full] if name in PLANS | TRAINS_LATE else []
        )
        for name in NAMES
    ],
)
def test_trains_two_steps(name, tmp_path, few_digits, few_emoji, few_photos):
    config = load(name)
    if "lite" in config.model.trunk.name and name not in TRAIN_LITE0:
        config.model.trunk = dict(name="convnet", widths=(32, 64))
        config.model.weights = ""
    config = shrunk.shrink(config, num_steps=2, **{"schedule.warmup_steps": 1})
    if config.task.name == "pairs":
        is_emoji = config.data.source.name == "emoji"
        images = few_emoji if is_emoji else shrunk.write_images(tmp_path / "images")
        config.data.dir = str(images)
        config.task.file = shrunk.write_pairs(tmp_path / "pairs.csv", config)
        report = loop.train(config, tmp_path / "run")
    elif config.data.source.name in ("folder", "unlabelled"):
        config.data.dir = str(shrunk.write_images(tmp_path / "images"))
        report = loop.train(config, tmp_path / "run")
    elif config.data.source.name == "tiles":
        config.data.dir = str(shrunk.write_large_images(tmp_path / "images"))
        report = loop.train(config, tmp_path / "run")
    elif config.data.source.name == "manifest":
        images = shrunk.write_images(tmp_path / "images")
        lines = [
            f"{path.relative_to(tmp_path)},{path.parent.name}"
            for path in sorted(images.rglob("*.png"))
        ]
        manifest = tmp_path / "images.csv"
        manifest.write_text("\n".join(["path,level_1", *lines]))
        config.data.dir = str(manifest)
        report = loop.train(config, tmp_path / "run")
    elif config.data.source.name in ("digits", "emoji", "photo_views"):
        few = dict(digits=few_digits, emoji=few_emoji, photo_views=few_photos)
        config.data.dir = str(few[config.data.source.name])
        report = loop.train(config, tmp_path / "run")
    else:
        with mock_tfds(config.data.source.dataset):
            report = loop.train(config, tmp_path / "run")
    # Better numbers of changed copies are no better similarity, where one reads them.
    caveat = "may be worse at finding similar images"
    for page in (report, report.with_name("verdict.txt")):
        is_unlabelled = config.data.source.name == "unlabelled"
        assert (caveat in page.read_text("utf-8")) == is_unlabelled
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    told = results.pop("held out", None)
    assert (told is not None) == (config.task.name in ("classification", "attributes"))
    assert set(results) == {"validation", "test"}
    of_task = results["validation"].pop("autoencoder", None)
    assert (of_task is not None) == (config.task.name == "autoencoder")
    for split in results.values():
        assert set(split) == {*config.evaluation.evaluators}
        systems = {"model", "untrained", "pixels"}
        systems |= {"frozen"} if config.model.weights else set()
        systems |= {"whitened"} if config.model.whitening_power else set()
        assert set(split["retrieval"]["recall@1"]) == systems
        assert split["triplets"]["num_triplets"]["model"] > 0
    assert report.stat().st_size < 10 * 2**20
