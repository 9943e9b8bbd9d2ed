"""Pretrained networks as models, without any training."""

import json
import shutil

import cv2
from flax import nnx
from helpers import shrunk
from helpers.commands import run_command
import jax
import numpy as np
import pytest

import deeprank_jax
from deeprank_jax import models
from deeprank_jax.data import decode
from deeprank_jax.errors import ArtifactError, ExportError
from deeprank_jax.export import copies, export_pretrained, generated_images
from deeprank_jax.export import pretrained as pretrained_lib
from deeprank_jax.files import locks
from deeprank_jax.inference import artifact, pretrained
from deeprank_jax.models.layers import l2_normalize
from deeprank_jax.models.pretrained.weights import load_weights
from deeprank_jax.models.trunks.efficientnet_lite import EfficientNetLite

NAME = "efficientnet_lite0"


@pytest.fixture(autouse=True, scope="module")
def cache(pretrained_folder):
    """The network is in the cache folder of the tests."""


def test_a_name_is_a_model():
    model = deeprank_jax.load(NAME)
    assert model.artifact.path == pretrained.cached_folder(NAME)
    assert (model.image_size, model.embedding_dim) == (224, 1280)
    assert model.threshold is model.cluster_distance is None
    images = generated_images.draw_images(3, seed=1)
    embeddings = model.embed(images)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1.0, rtol=1e-5)
    assert model.trained_on == "ImageNet"


def test_the_embedding_is_the_trunk_with_the_package_s_weights():
    """Against the network itself, read by another way than the export's."""
    create = lambda: models.create_classifier(
        trunk=dict(name=NAME), image_size=224, num_classes=1
    )
    network = models.create_abstract(create)
    load_weights(network, weights="package", layout="", trunk=NAME)
    network = models.draw_missing(network, create)
    network.eval()
    assert isinstance(network.trunk, EfficientNetLite)
    images = generated_images.draw_images(2, seed=2)
    resized = np.stack([decode.resize_image(x, 224, "crop") for x in images])
    graphdef, state = nnx.split(network)
    features = lambda state, x: nnx.merge(graphdef, state).features(x)
    expected = l2_normalize(jax.jit(features)(state, resized))
    actual = deeprank_jax.load(NAME).embed(images)
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_two_commands_lead_from_a_folder_to_a_search(tmp_path):
    photos = shrunk.write_images(tmp_path / "photos", num_images=4, size=64)
    index = run_command(
        ["index", photos, f"--model={NAME}", f"--out={tmp_path / 'index'}"]
    )
    assert index.returncode == 0, index.stderr
    query = photos / "class 01" / "0.png"
    search = run_command(
        ["search", query, f"--index={tmp_path / 'index'}", "--json", "--k=3"]
    )
    assert search.returncode == 0, search.stderr
    hits = json.loads(search.stdout)["hits"]
    assert {hit["label"] for hit in hits} == {"class 01"}


def test_copies_are_found(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, image in enumerate(generated_images.draw_images(6, seed=3)):
        cv2.imwrite(str(folder / f"{number}.png"), image)
    small = copies.degrade(cv2.imread(str(folder / "2.png")))
    cv2.imwrite(str(folder / "copy.png"), small)
    groups = deeprank_jax.load(NAME).duplicates(folder)
    assert groups.num_copies == 1


def test_the_card_says_what_it_is():
    card = (pretrained.cached_folder(NAME) / artifact.CARD).read_text()
    assert "| Trained on | ImageNet: 1,281,167 images" in card
    assert "as it comes" in card
    assert f'deeprank_jax.load("{NAME}")' in card
    assert "Checkpoint" not in card


def test_a_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / NAME).mkdir()
    with pytest.raises(ArtifactError, match="is not an exported model"):
        deeprank_jax.load(NAME)


def test_a_damaged_cache_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = pretrained.cached_folder(NAME)
    folder.mkdir(parents=True)
    with pytest.raises(ArtifactError, match=f"delete {folder}, and the next use wri"):
        deeprank_jax.load(NAME)


def test_another_process_may_write_the_cache_meanwhile(tmp_path, monkeypatch):
    written = pretrained.cached_folder(NAME)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def write_late(name, out):
        shutil.copytree(written, out)
        raise ArtifactError("it is there already")

    monkeypatch.setattr(pretrained_lib, "export_pretrained", write_late)
    assert deeprank_jax.load(NAME).embedding_dim == 1280


def test_another_process_that_writes_the_cache_is_waited_for(tmp_path, monkeypatch):
    written, calls = pretrained.cached_folder(NAME), []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def refuse_twice(name, out):
        calls.append(out)
        if len(calls) == 2:
            shutil.copytree(written, out)
        raise locks.LockedError("Process 1 is writing it")

    monkeypatch.setattr(pretrained_lib, "export_pretrained", refuse_twice)
    monkeypatch.setattr(pretrained_lib, "_POLL_SECONDS", 0.01)
    assert deeprank_jax.load(NAME).embedding_dim == 1280
    assert len(calls) == 2


def test_other_names_are_refused(tmp_path):
    with pytest.raises(ExportError, match="resnet50 is not a pretrained network; cho"):
        export_pretrained("resnet50", tmp_path / "model")
    process = run_command(["index", tmp_path, "--model=efficientnet_lite9", "--out=x"])
    assert "or one of efficientnet_lite0" in process.stderr
    assert process.stderr.count("\n") == 1
    both = run_command(["export", f"--pretrained={NAME}", "--workdir=x", "--out=y"])
    assert "not allowed with argument" in both.stderr
