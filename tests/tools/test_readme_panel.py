"""The tool that draws the README's picture, as a process on the real emoji."""

import pathlib
import subprocess
import sys

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from deeprank_jax import data
from deeprank_jax.configs import emoji
from deeprank_jax.data import reader
from deeprank_jax.data.sources import tfds_dataset
from deeprank_jax.descriptors.pixels import center_and_normalize, pixels
from deeprank_jax.errors import DataError
from tools.docs import readme_panel

ROOT = pathlib.Path(__file__).parents[2]
SHOWN = ("google", "twitter")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("tfds")


@pytest.fixture(scope="module")
def vendors(data_dir):
    builder = tfds_dataset.prepare("emoji", str(data_dir))
    source = builder.as_data_source(
        split="test", decoders={"image": tfds.decode.SkipDecoding()}
    )
    names = builder.info.features["vendor"].names
    return np.array([names[example["vendor"]] for example in source])


@pytest.fixture(scope="module")
def embeddings(data_dir, vendors):
    """Pixels of the two vendors' designs; NaN, which no search takes, of all others."""
    config = emoji.get_config()
    config.data.dir = str(data_dir)
    records = data.create_records(config.data)["test"]
    shown = np.flatnonzero(np.isin(vendors, SHOWN))
    found = np.full((len(records), 768), np.nan, np.float32)
    with reader.ImageReader(records, image_size=16) as images:
        found[shown] = center_and_normalize(pixels(images.load(shown)[0]))
    return found


def run(workdir, data_dir, out):
    return subprocess.run(
        [
            sys.executable, "-m", "tools.docs.readme_panel", f"--workdir={workdir}",
            f"--data_dir={data_dir}", f"--out={out}",
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def save(workdir, embeddings, ok=None):
    ok = np.ones(len(embeddings), bool) if ok is None else ok
    np.savez(workdir / "test_embeddings.npz", embeddings=embeddings, ok=ok)


def test_the_picture_shows_the_two_vendors_only(
    embeddings, vendors, data_dir, tmp_path
):
    assert set(SHOWN) < set(vendors)
    save(tmp_path, embeddings)
    done = run(tmp_path, data_dir, tmp_path / "docs" / "panel.png")
    assert done.returncode == 0, done.stderr
    picture = cv2.imread(str(tmp_path / "docs" / "panel.png"))
    height, width, _ = picture.shape
    assert width == 1200
    assert 700 < height < 1000  # Six rows of tiles, which are square.
    # Every row holds a query and eight neighbours: little of it is white.
    tiles = picture[44:-52].reshape(height - 96, -1)
    rows = [part for part in np.array_split(tiles, 6) if (part < 250).mean() > 0.2]
    assert len(rows) == 6
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 1000
    # Each query has found its other design: the first answer has the green frame.
    green = (np.abs(picture[44:-52].astype(int) - (0x56, 0x7A, 0x0B)) < 40).all(axis=2)
    for row in np.array_split(green, 6):
        assert row[:, 165:290].sum() > 500
    # The caption tells how many of all queries do.
    nearest = nearest_of(embeddings[np.isin(vendors, SHOWN)])
    labels = labels_of(data_dir)[np.isin(vendors, SHOWN)]
    share = (labels == labels[nearest]).mean()
    assert f"{share:.0%} of all find their other design first." in done.stdout
    assert "drawn at random from the" in done.stdout


def nearest_of(rows):
    """Returns the index of each row's nearest other row."""
    similarity = rows @ rows.T
    np.fill_diagonal(similarity, -np.inf)
    return similarity.argmax(axis=1)


def labels_of(data_dir):
    config = emoji.get_config()
    config.data.dir = str(data_dir)
    return data.create_records(config.data)["test"].labels[:, -1]


def test_a_run_that_finds_nothing_gets_one_sentence(vendors, data_dir, tmp_path):
    rng = np.random.default_rng(0)
    save(tmp_path, rng.normal(size=(len(vendors), 8)).astype(np.float32))
    # In this process, as another takes seconds to begin.
    with pytest.raises(DataError, match="too few for 6 rows: give the folder of a run"):
        readme_panel.draw_panel(tmp_path, data_dir, tmp_path / "panel.png")
    assert not (tmp_path / "panel.png").exists()


def test_both_vendors_take_part(embeddings, vendors, data_dir, tmp_path):
    """One of Twitter's designs that no search takes is missed."""
    twitter = np.flatnonzero(vendors == "twitter")
    broken = embeddings.copy()
    broken[twitter[0]] = np.nan
    save(tmp_path, broken)
    done = run(tmp_path, data_dir, tmp_path / "panel.png")
    assert done.returncode != 0
    assert "1 of 1240 queries are not finite" in done.stderr


def test_missing_embeddings_get_one_sentence(tmp_path):
    done = run(tmp_path, tmp_path, tmp_path / "panel.png")
    assert done.returncode == 1
    path = tmp_path / "test_embeddings.npz"
    assert done.stderr.splitlines()[-1].startswith(f"error: {path} is missing; run")
    assert "Traceback" not in done.stderr


def test_embeddings_of_other_records_get_one_sentence(vendors, data_dir, tmp_path):
    save(tmp_path, np.zeros((3, 2)))
    done = run(tmp_path, data_dir, tmp_path / "panel.png")
    assert done.returncode == 1
    assert f"holds 3 embeddings for {len(vendors)} records" in done.stderr
    assert "Traceback" not in done.stderr
