"""A finished run is known again, unless anything that it depends on has changed."""

import json
import shutil

import cv2
from helpers import exported
import numpy as np
import pytest

from deeprank_jax import config as config_lib
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
        "report/verdict.txt", "images.json", "config.json", "run.sha256",
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


def test_a_file_that_the_config_names_may_have_changed(start_again, tmp_path):
    run, _, start = start_again
    ratings = tmp_path / "ratings.csv"
    ratings.write_text("query,positive,negative\n")
    flag = f"--config.evaluation.evaluators.rated_triplets.file={ratings}"
    path = run / "config.json"
    config = json.loads(path.read_text())
    config["evaluation"]["evaluators"]["rated_triplets"] = {"file": str(ratings)}
    path.write_text(json.dumps(config))
    workdir.Workdir(run).seal_finished()
    assert workdir.Workdir(run).is_finished()
    assert start(flag)


def test_a_run_is_unfinished_while_it_is_made_again(start_again):
    run, _, _ = start_again
    workdir.Workdir(run).seal()
    assert not workdir.Workdir(run).is_finished()
    assert np.load(run / "test_embeddings.npz")["ok"].any()
