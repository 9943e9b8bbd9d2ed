"""A finished run is known again, unless anything that it depends on has changed."""

import json
import shutil

import cv2
from helpers import exported
import numpy as np
import pytest

from deeprank_jax import config as config_lib
from deeprank_jax import version
from deeprank_jax.training import loop, workdir


@pytest.fixture
def start_again(trained, photos, tmp_path, monkeypatch):
    """Returns a copy of a run and its images, and a function that starts it again.

    The function returns whether the run would be trained or measured.
    """
    run = shutil.copytree(trained, tmp_path / "run")
    images = shutil.copytree(photos, tmp_path / "photos")
    words = json.loads(trained.with_name("command.json").read_text())
    words = [x for x in words if x.startswith("--config.")]
    monkeypatch.setattr(loop, "_train", lambda *args: None)

    def start(*flags):
        config = config_lib.load_config(
            str(exported.ROOT / "configs" / "base.py"), [*words, *flags]
        )
        return loop.train(config, run) is None

    return run, images, start


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def test_a_run_that_has_not_changed_is_finished(start_again):
    run, _, start = start_again
    assert workdir.Workdir(run).is_finished()
    assert not start()
    assert not (run / "lock").exists()


@pytest.mark.parametrize(
    "name",
    [
        "results.json", "intervals.json", "test_embeddings.npz", "report/index.html",
        "report/verdict.txt", "version.txt", "images.json", "config.json", "run.sha256",
        "checkpoints/8/run/metadata", "checkpoints/8/SHA256SUMS",
    ],
)  # fmt: skip
@pytest.mark.parametrize("damage", ["flipped", "deleted"])
def test_a_damaged_or_missing_file_is_made_again(start_again, name, damage):
    run, _, start = start_again
    if damage == "flipped":
        flip(run / name)
    else:
        (run / name).unlink()
    if (name, damage) == ("config.json", "flipped"):
        assert not workdir.Workdir(run).is_finished()
    else:
        assert start()


def test_another_config_is_another_run(start_again, tmp_path):
    _, images, start = start_again
    assert start("--config.num_steps=9")
    # Moved images are looked at again, too.
    assert start(f"--config.data.dir={images}")


def test_replaced_images_are_noticed(start_again, photos):
    _, _, start = start_again
    path = next(photos.rglob("*.png"))
    content = path.read_bytes()
    try:
        cv2.imwrite(str(path), 255 - cv2.imread(str(path)))
        assert start()
    finally:
        path.write_bytes(content)
    assert not start()


def finish_with(run, section, name, value):
    """Makes a run one whose config had another value."""
    path = run / "config.json"
    config = json.loads(path.read_text())
    part = config
    for key in section:
        part = part[key]
    part[name] = value
    path.write_text(json.dumps(config))
    workdir.Workdir(run).seal_finished()
    assert workdir.Workdir(run).is_finished()


@pytest.mark.parametrize("place", ["{}/ratings.csv", "~/ratings.csv", "{}/deleted.csv"])
def test_a_file_that_the_config_names_may_have_changed(
    start_again, tmp_path, monkeypatch, place
):
    run, _, start = start_again
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "ratings.csv").write_text("query,positive,negative\n")
    ratings = place.format(tmp_path)
    finish_with(
        run, ["evaluation", "evaluators"], "rated_triplets", {"file": ratings}
    )  # fmt: skip
    assert start(f"--config.evaluation.evaluators.rated_triplets.file={ratings}")


@pytest.mark.parametrize(
    ("text", "starts"), [("x" * 300, False), ("~/layout.json", True)]
)
def test_any_text_of_the_config_may_be_a_path_or_none(
    start_again, tmp_path, monkeypatch, text, starts
):
    run, _, start = start_again
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "layout.json").write_text("{}")
    finish_with(run, ["model"], "weights_layout", text)
    assert start(f"--config.model.weights_layout={text}") == starts


def test_a_run_of_another_version_is_measured_again(start_again, monkeypatch):
    _, _, start = start_again
    assert not start()
    monkeypatch.setattr(version, "number", lambda: "99.0")
    assert start()


def test_a_run_is_unfinished_while_it_is_made_again(start_again):
    run, _, _ = start_again
    workdir.Workdir(run).seal()
    assert not workdir.Workdir(run).is_finished()
    assert np.load(run / "test_embeddings.npz")["ok"].any()
