"""The golden feature as a relevance, and the program that makes it."""

import dataclasses

from helpers import own_images, shrunk
from helpers.commands import run_command
import numpy as np
import pytest

from deeprank_jax import relevance
from deeprank_jax.configs import base
from deeprank_jax.relevance import vectors
from deeprank_jax.training import loop

pytestmark = pytest.mark.usefixtures("without_pictures")

POOL = own_images.create_pool(["a", "b"], 3)


def write(path, values, **metadata):
    ids = own_images.paths_of(POOL)[::-1]
    vectors.write_vectors(path, ids, values[::-1], metadata)


def test_relevance_falls_with_the_distance(tmp_path, warnings_logged):
    values = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    path = tmp_path / "golden.parquet"
    made_for = {"pool": POOL.fingerprint}
    write(path, values, scale=3.0, weights={"hog": 1.5}, records=made_for)
    golden = relevance.create_relevance("golden", file=str(path))
    assert isinstance(golden, relevance.Golden)
    assert golden.weights == {"hog": 1.5}
    (attributes,) = golden.attributes([POOL])
    np.testing.assert_array_equal(attributes, values)
    block = golden.pairwise(attributes[:, None], attributes[None])
    for i in range(6):
        for j in range(6):
            distance = sum((values[i].astype(float) - values[j]) ** 2)
            assert block[i, j] == pytest.approx(np.exp(-distance / 3.0), rel=1e-4)
    assert block.min() < 0.3
    assert not warnings_logged


def test_other_labels_are_told(tmp_path, warnings_logged):
    path = tmp_path / "golden.parquet"
    made_for = {"pool": POOL.fingerprint}
    write(path, np.eye(6), scale=1.0, weights={}, records=made_for)
    other = dataclasses.replace(POOL, labels=POOL.labels + 1, attributes=None)
    relevance.Golden(str(path)).attributes([other])
    assert len(warnings_logged) == 1
    assert "was written for other records or labels of pool" in warnings_logged[0]


def test_records_without_a_vector_are_named(tmp_path):
    path = tmp_path / "golden.parquet"
    write(path, np.eye(6), scale=1.0, weights={})
    larger = own_images.create_pool(["a", "c"], 3)
    with pytest.raises(ValueError, match=r"no vector for 3 of the 6 .*'c/3.png'"):
        relevance.Golden(str(path)).attributes([larger])


def test_other_vectors_are_refused(tmp_path):
    path = tmp_path / "vectors.parquet"
    write(path, np.eye(6), model="one")
    with pytest.raises(ValueError, match="holds no golden feature but other vectors"):
        relevance.Golden(str(path))
    with pytest.raises(ValueError, match="file of vectors does not exist"):
        relevance.Golden(str(tmp_path / "none.parquet"))


def run_tool(*flags):
    return run_command(["golden-feature", *flags])


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = shrunk.write_images(
        tmp_path_factory.mktemp("own") / "images", num_classes=12, num_images=8
    )
    (root / "class 00" / "0.png").write_bytes(b"no image")
    return root


@pytest.fixture(scope="module")
def ratings(images):
    path = images.parent / "ratings.csv"
    done = run_tool(*config_flags(images), f"--simulate={path}", "--num_simulated=900")
    assert done.returncode == 0, done.stderr
    return path


def config_flags(images):
    return "--config=configs/base.py", f"--config.data.dir={images}"


def test_the_tool_makes_a_relevance_of_ratings(images, ratings):
    out = images.parent / "golden.parquet"
    features = "pixels,lab_histogram,lbp"
    options = f"--features={features}", "--max_dims=6", "--image_size=24"
    flags = *config_flags(images), f"--triplets={ratings}", f"--out={out}", *options
    done = run_tool(*flags)
    assert done.returncode == 0, done.stderr
    assert "learned - equal" in done.stdout
    found = vectors.read_vectors(out)
    weighted = [name for name, x in found.metadata["weights"].items() if x > 0]
    assert found.values.shape == (96, 6 * len(weighted))
    assert f"Wrote 96 vectors of {6 * len(weighted)} to {out}." in done.stdout
    assert sorted(found.metadata) == [
        *("agreement", "command", "counts", "dims", "explained", "penalty"),
        *("records", "scale", "weights"),
    ]
    assert list(found.metadata["weights"]) == features.split(",")
    assert "--max_dims=6" in found.metadata["command"]
    # A tenth of the ratings are wrong.
    assert 0.75 < found.metadata["agreement"]["learned weights"]["agreement"] < 0.97
    splits = own_images.create("folder", images)
    assert found.metadata["records"] == {k: r.fingerprint for k, r in splits.items()}
    golden = relevance.Golden(str(out))
    attached = relevance.attach(golden, splits)
    for records in attached.values():
        x, label = records.attributes, records.labels[:, -1]
        block = golden.pairwise(x[:, None], x[None])
        same = label[:, None] == label
        assert block[same].mean() > 1.5 * block[~same].mean()
    bad = found.ids.index("class 00/0.png")
    assert not found.values[bad].any()
    again = out.with_name("again.parquet")
    run_tool(*flags, f"--out={again}")
    np.testing.assert_array_equal(vectors.read_vectors(again).values, found.values)


def test_a_trained_run_is_a_feature(images, ratings):
    config = shrunk.shrink(base.get_config(), num_steps=4)
    config.data.dir = str(images)
    workdir = images.parent / "run"
    loop.train(config, workdir)
    out = images.parent / "model.parquet"
    done = run_tool(
        *config_flags(images),
        *(f"--triplets={ratings}", f"--out={out}", f"--model={workdir}"),
        "--features=pixels",
    )
    assert done.returncode == 0, done.stderr
    found = vectors.read_vectors(out)
    assert list(found.metadata["weights"]) == ["pixels", "model:run"]
    assert found.metadata["dims"]["model:run"] == 8
    agreement = found.metadata["agreement"]
    assert 0.6 < agreement["model:run"]["agreement"] < 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--triplets=none.csv",), "golden-feature: none.csv: cannot be read"),
        (("--triplets={ratings}", "--features=sift"), "descriptors.sift is not known"),
        (
            ("--triplets={ratings}", "--features="),
            "golden-feature: --features and --model are",
        ),
        (
            ("--triplets={ratings}", "--features=", "--model={images}"),
            "it has no config.json; give the --workdir of",
        ),
    ],
)
def test_the_tool_says_what_is_wrong(images, ratings, flags, message):
    filled = [flag.format(ratings=ratings, images=images) for flag in flags]
    done = run_tool(*config_flags(images), *filled)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_ratings_are_either_read_or_simulated(images):
    done = run_tool(*config_flags(images))
    assert done.returncode == 2
    assert "one of the arguments --triplets --simulate is required" in done.stderr


def test_a_scale_that_is_no_number(tmp_path):
    path = tmp_path / "golden.parquet"
    write(path, np.eye(6), scale="wide", weights={})
    with pytest.raises(ValueError, match="holds no golden feature but other vectors"):
        relevance.Golden(str(path))
