"""Runs that learn from a teacher's embeddings."""

import contextlib
import json
import pathlib
import shutil

import cv2
from helpers import shrunk
import numpy as np
import pytest

import deeprank_jax
from deeprank_jax.cli.__main__ import main
from deeprank_jax.config.saved import upgrade_config
from deeprank_jax.data import create_records
from deeprank_jax.errors import CheckpointError, ConfigError, DataError
from deeprank_jax.relevance.vectors import write_vectors
from deeprank_jax.training import loop
from deeprank_jax.training.experiment import create_experiment, device_batch
from deeprank_jax.training.metrics_writer import read_metrics
from deeprank_jax.training.teacher import read_teacher

TERMS = {"multi_similarity": {}, "distillation": {"weight": 2.0}}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    return shrunk.write_images(folder, num_classes=12, num_images=6)


@pytest.fixture
def config(images, tmp_path):
    shrunk.write_teacher(tmp_path / "teacher.parquet", images)
    return create_config(images, str(tmp_path / "teacher.parquet"))


def create_config(images, teacher, terms=TERMS):
    config = shrunk.create_config(
        images, num_steps=4, eval_every=4, **{"data.teacher": teacher}
    )
    config.loss = {"name": "weighted_sum", "terms": terms}
    return config


def test_each_image_comes_with_its_vector(config, images, tmp_path):
    values, names = shrunk.write_teacher(tmp_path / "teacher.parquet", images)
    with create_experiment(config, tmp_path / "run") as run, run.stream(0) as stream:
        batch = next(stream)
        on_devices = np.asarray(device_batch(batch, run.teacher)["teacher"])
        indices = batch.groups.indices
        expected = [
            values[names.index(run.records["train"].describe(int(i)))]
            for i in indices.reshape(-1)
        ]
    np.testing.assert_allclose(on_devices.reshape(-1, 7), expected, rtol=1e-6)


@pytest.fixture(scope="module")
def finished(images, tmp_path_factory):
    """Returns the workdir of a run, whose teacher lies beside it."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    teacher = workdir.with_name("teacher.parquet")
    shrunk.write_teacher(teacher, images)
    loop.train(create_config(images, str(teacher)), workdir)
    return workdir


@pytest.fixture
def begun(finished, images, tmp_path):
    """Returns a copy of that run, and the config to go on with."""
    shutil.copytree(finished, tmp_path / "run")
    shutil.copy(finished.with_name("teacher.parquet"), tmp_path)
    config = create_config(images, str(tmp_path / "teacher.parquet"))
    config.num_steps = 6
    return tmp_path / "run", config


def losses_of(workdir):
    return [e["train/loss"] for e in read_metrics(workdir) if "train/loss" in e]


def test_it_changes_what_is_learned_and_a_run_goes_on_with_it(begun, images, tmp_path):
    workdir, config = begun
    alone = create_config(images, "", {"multi_similarity": {}})
    loop.train(alone, tmp_path / "alone")
    of_both = zip(losses_of(workdir), losses_of(tmp_path / "alone"), strict=True)
    assert all(with_teacher > without + 0.1 for with_teacher, without in of_both)
    loop.train(config, workdir)
    assert read_metrics(workdir)[-1]["step"] == 6


def test_another_teacher_is_refused_by_the_run(begun, images):
    workdir, config = begun
    shrunk.write_teacher(workdir.with_name("teacher.parquet"), images, seed=1)
    with pytest.raises(CheckpointError, match="made with other embeddings than"):
        loop.train(config, workdir)


def test_a_run_goes_on_without_its_teacher_and_before_there_was_one(begun):
    workdir, config = begun
    saved = json.loads((workdir / "config.json").read_text())
    config.data.teacher = ""
    config.loss = {"name": "weighted_sum", "terms": {"supcon": {}}}
    loop.train(config, workdir)
    assert read_metrics(workdir)[-1]["step"] == 6
    del saved["data"]["teacher"]
    assert upgrade_config(saved)["data"]["teacher"] == ""


def read(config):
    """Returns the teacher of a config and the training records."""
    records = create_records(config.data)["train"]
    return read_teacher(config, records), records


def test_images_without_a_vector_are_named(config, images, tmp_path):
    shrunk.write_teacher(tmp_path / "teacher.parquet", images, left_out=40)
    message = r"has no vector for \d+ of the .*add them under these names"
    with pytest.raises(DataError, match=message):
        read(config)


def test_a_file_that_is_not_there_is_named_with_its_key(images, tmp_path):
    config = create_config(images, "gone.parquet")
    with pytest.raises(
        DataError, match=r"gone\.parquet: .* no such file of .*\(config\.data\.tea"
    ):
        create_experiment(config, tmp_path / "run")


@pytest.mark.parametrize(
    ("teacher", "terms", "message"),
    [
        ("", TERMS, r"distillation needs config\.data\.teacher: the file"),
        ("x.parquet", {"supcon": {}}, r"teacher='x\.parquet' has no effect without"),
        ("", {"weighted_sum": {"terms": TERMS}}, r"distillation needs config\.data"),
    ],
)
def test_teacher_and_loss_go_together(images, tmp_path, teacher, terms, message):
    config = create_config(images, teacher, terms)
    with pytest.raises(ConfigError, match=message):
        create_experiment(config, tmp_path / "run")


@pytest.fixture(scope="module")
def embedded(exported, photos, tmp_path_factory):
    """Returns the table of `deeprank embed` of a folder by its relative name."""
    table = tmp_path_factory.mktemp("embedded") / "teacher.parquet"
    with contextlib.chdir(photos.parent):
        main(["embed", photos.name, f"--model={exported}", f"--out={table}"])
    return table


@pytest.mark.parametrize("source", ["folder", "link", "manifest"])
def test_a_table_of_embeddings_is_a_teacher(
    exported, photos, embedded, tmp_path, monkeypatch, source
):
    """That of another model, as `deeprank embed` writes it."""
    monkeypatch.chdir(photos.parent)
    names = sorted(path.relative_to(photos.parent) for path in photos.rglob("*.png"))
    lines = [f"{photos.parent / name},{name.parent.name}" for name in names]
    manifest = tmp_path / "images.csv"
    manifest.write_text("\n".join(["path,level_1", *lines]))
    (tmp_path / "link").symlink_to(photos)
    images = {"folder": photos, "link": tmp_path / "link", "manifest": manifest}
    config = create_config(images[source], str(embedded))
    config.data.source = {"name": "manifest" if source == "manifest" else "folder"}
    teacher, records = read(config)
    first = cv2.imread(records.path(0))
    (expected,) = deeprank_jax.load(exported).embed([first[..., ::-1]])
    np.testing.assert_allclose(teacher.of(np.array([0]))[0], expected, atol=1e-5)
    assert not np.isnan(teacher.embeddings).any()


def test_images_that_embed_could_not_read_are_no_obstacle(
    exported, photos, tmp_path, warnings_logged
):
    """They are in no batch either."""
    images, table = tmp_path / "images", tmp_path / "teacher.parquet"
    shutil.copytree(photos, images)
    config = create_config(images, str(table))
    config.data.max_bad_share = 0.5
    bad = pathlib.Path(create_records(config.data)["train"].path(3))
    bad.write_text("no image")
    main(["embed", str(images), f"--model={exported}", f"--out={table}"])
    teacher, _ = read(config)
    assert any("no vector for 1 of the" in line for line in warnings_logged)
    with pytest.raises(DataError, match=f"has no vector of .*{bad.name}"):
        teacher.of(np.array([[2, 3]]))
    loop.train(config, tmp_path / "run")


def test_a_vector_of_zeros_is_named(config, images, tmp_path):
    values, names = shrunk.write_teacher(tmp_path / "teacher.parquet", images)
    write_vectors(tmp_path / "teacher.parquet", names, 0 * values, {})
    with pytest.raises(
        DataError, match=r"vector of 'class .* has no direction \(zeros"
    ):
        read(config)
