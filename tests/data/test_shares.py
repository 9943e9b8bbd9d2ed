"""Shares of the classes, or images, that are kept from training."""

import json

from helpers import shrunk
import numpy as np
import pytest

from deeprank_jax import config as config_lib
from deeprank_jax import load
from deeprank_jax.data import create_records, select_split, splits
from deeprank_jax.errors import ConfigError, DataError
from deeprank_jax.export.run import export_run
from deeprank_jax.relevance import create_relevance
from deeprank_jax.sampling.create import create_sampler
from deeprank_jax.training import loop

pytestmark = pytest.mark.usefixtures("without_pictures")

NAMES = [f"class {i}" for i in range(2000)]


def shares_of(shares):
    found = [splits.class_split(name, shares) for name in NAMES]
    return {name: found.count(name) / len(NAMES) for name in set(found)}


def test_classes_are_split_by_the_shares():
    found = shares_of(splits.Shares(0.3, 0.2))
    assert found["test"] == pytest.approx(0.3, abs=0.03)
    assert found["validation"] == pytest.approx(0.2, abs=0.03)
    assert shares_of(splits.Shares(0, 0.25)).keys() == {"train", "validation"}


def test_a_smaller_test_share_only_moves_classes_out_of_test():
    before = [splits.class_split(name, splits.Shares(0.5, 0.1)) for name in NAMES]
    after = [splits.class_split(name, splits.Shares(0.3, 0.1)) for name in NAMES]
    moved = {a for a, b in zip(after, before, strict=True) if b != "test"}
    assert "test" not in moved
    assert splits.Shares().ends == {"test": 128, "validation": 152}


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("test_share=1.0", r"config\.data\.source\.test_share must be .* got 1\.0"),
        ("test_share=-0.1", "test_share must be at least 0"),
        ("validation_share=0", r"source\.validation_share must be above 0"),
        ("validation_share=0.7", "leave nothing for training"),
        ("split_by=photo", 'source.split_by must be "class" or "image", got \'photo\''),
        ("test_shares=0.3", "did you mean 'test_share'"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, flag, message):
    shrunk.write_images(tmp_path)
    words = [f"--config.data.dir={tmp_path}", f"--config.data.source.{flag}"]
    with pytest.raises(ConfigError, match=message):
        create_records(config_lib.load_config("folder", words).data)


def test_by_image_all_splits_have_all_classes(tmp_path):
    shrunk.write_images(tmp_path, num_classes=3, num_images=40)
    words = [f"--config.data.dir={tmp_path}", "--config.data.source.split_by=image"]
    parts = create_records(config_lib.load_config("folder", words).data)
    for name, share in {"train": 0.5, "validation": 0.2, "test": 0.3}.items():
        assert len(parts[name]) / 120 == pytest.approx(share, abs=0.12)
        assert len(np.unique(parts[name].labels)) == 3
    assert "(seen classes)" in parts["test"].name


def test_a_manifest_takes_the_same_options(tmp_path):
    paths = sorted(shrunk.write_images(tmp_path / "x", num_classes=12).rglob("*.png"))
    rows = [f"{path},{path.parent.name}" for path in paths]
    (tmp_path / "x.csv").write_text("\n".join(["path,level_1", *rows]))
    words = [
        f"--config.data.dir={tmp_path / 'x.csv'}", "--config.data.source.test_share=0"
    ]  # fmt: skip
    parts = create_records(config_lib.load_config("manifest", words).data)
    assert list(parts) == ["train", "validation"]
    assert sum(map(len, parts.values())) == len(paths)


@pytest.mark.slow
def test_without_test_a_run_is_measured_on_validation_and_exported(tmp_path):
    images = shrunk.write_images(tmp_path / "x", num_classes=12)
    words = [
        f"--config.data.dir={images}", "--config.data.source.test_share=0",
        *shrunk.flags(),
    ]  # fmt: skip
    report = loop.train(config_lib.load_config("folder", words), tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert list(results) == ["validation"]
    page = report.read_text(encoding="utf-8")
    assert "validation" in page
    export_run(tmp_path / "run", tmp_path / "model", precision=0.5)
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert "there is no test split" in card
    assert "validation images, each form called" in card
    config = config_lib.load_config("folder", words)
    with pytest.raises(DataError, match="The data have no test split; they have train"):
        select_split(create_records(config.data), "test")
    assert load(tmp_path / "model").embed([next(images.rglob("*.png"))]).shape[0] == 1


def test_one_image_of_each_class_cannot_train(tmp_path):
    shrunk.write_images(tmp_path, num_classes=12, num_images=1)
    words = [f"--config.data.dir={tmp_path}"]
    with pytest.raises(DataError, match=r"single image.*--config=unlabelled"):
        create_records(config_lib.load_config("folder", words).data)


def test_a_group_larger_than_every_category_is_refused(tmp_path):
    shrunk.write_images(tmp_path, num_classes=12, num_images=6)
    words = [
        f"--config.data.dir={tmp_path}", "--config.sampler.positives_per_anchor=6",
        "--config.triplets.category_level=-1",
    ]  # fmt: skip
    config = config_lib.load_config("folder", words)
    records = create_records(config.data)
    relevance = create_relevance("same_class")
    message = r"sampler\.positives_per_anchor=6 is more .* has 6 images, so give at m"
    with pytest.raises(ConfigError, match=message):
        create_sampler(config, records["train"], relevance)
    config.sampler.positives_per_anchor = 5
    create_sampler(config, records["train"], relevance)
