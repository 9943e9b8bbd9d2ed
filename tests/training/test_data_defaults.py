"""Values of a config that are chosen from the data."""

import itertools
import json

from helpers import shrunk
import jax
import numpy as np
from PIL import Image
import pytest

from deeprank_jax import config as config_lib
from deeprank_jax.data import create_records
from deeprank_jax.errors import DataError
from deeprank_jax.sampling.image_tables import list_ids
from deeprank_jax.training.data_defaults import fit_to_data


def write(folder, *, classes, images, size):
    rng = np.random.default_rng(0)
    for label in range(classes):
        path = folder / f"class {label}"
        path.mkdir(parents=True)
        for number in range(images):
            pixels = rng.integers(0, 256, (size[1], size[0], 3), np.uint8)
            Image.fromarray(pixels).save(path / f"{number}.png")
    return folder


def fit(folder, *words, saved=None):
    words = [f"--config.data.dir={folder}", *words]
    config = fit_to_data(config_lib.load_config("folder", words), saved)
    sampler = config.sampler
    return (
        config.data.image_size, sampler.positives_per_anchor, config.batch_size,
        config.num_steps, config.eval_every,
    )  # fmt: skip


def train_records(folder):
    words = [f"--config.data.dir={folder}"]
    return create_records(config_lib.load_config("folder", words).data)["train"]


def on_all_devices(num_groups):
    """Returns the next number that divides over the devices."""
    return -(-num_groups // jax.device_count()) * jax.device_count()


def test_a_few_small_images(tmp_path):
    folder = write(tmp_path / "few", classes=20, images=3, size=(60, 40))
    records = train_records(folder)
    assert set(np.bincount(records.labels[:, -1])) <= {0, 3}
    # Groups of 3 images, as many as the training images fill.
    assert fit(folder) == (96, 2, on_all_devices(len(records) // 3), 200, 20)


@pytest.mark.slow
def test_large_images_come_in_smaller_batches(tmp_path):
    folder = write(tmp_path / "large", classes=20, images=5, size=(500, 161))
    assert fit(folder)[:3] == (192, 3, 8)
    assert fit(folder, "--config.data.image_size=128")[:3] == (
        128, 3, on_all_devices(min(16, len(train_records(folder)) // 4)),
    )  # fmt: skip
    folder = write(tmp_path / "photos", classes=6, images=4, size=(900, 700))
    assert fit(folder)[0] == 224


@pytest.mark.parametrize(
    ("loss", "num_views"), [("nt_xent", 2), ("instance_discrimination", 1)]
)
def test_a_batch_without_labels_holds_views(tmp_path, loss, num_views):
    folder = write(tmp_path / "flat", classes=20, images=10, size=(60, 40))
    words = [f"--config.data.dir={folder}", f"--config.loss.name={loss}"]
    config = fit_to_data(config_lib.load_config("unlabelled", words), None)
    # 64 images, as for groups.
    assert config.batch_size == on_all_devices(64 // num_views)


def test_steps_are_ten_epochs_between_bounds(tmp_path):
    folder = write(tmp_path / "images", classes=40, images=10, size=(8, 8))
    assert fit(folder) == (96, 3, 16, 200, 20)
    steps = fit(folder, "--config.batch_size=1")[3]
    assert steps == round(10 * len(train_records(folder)) / 4)
    assert fit(folder, "--config.batch_size=1", "--config.num_steps=70")[4] == 7


def test_given_values_stay(tmp_path):
    words = [
        "--config.data.image_size=32", "--config.batch_size=5", "--config.num_steps=3",
        "--config.eval_every=2", "--config.sampler.positives_per_anchor=2",
    ]  # fmt: skip
    # Without a look at the images: there are none.
    assert fit(tmp_path, *words) == (32, 2, 5, 3, 2)


def test_a_run_keeps_the_values_that_it_began_with(tmp_path):
    folder = write(tmp_path / "images", classes=6, images=3, size=(60, 40))
    config = config_lib.load_config("folder", [f"--config.data.dir={folder}"])
    saved = json.loads(config.to_json_best_effort())
    saved["data"]["image_size"], saved["batch_size"] = 64, 77
    path = tmp_path / "config.json"
    path.write_text(json.dumps(saved))
    assert fit(folder, saved=path)[:3:2] == (64, 77)
    assert fit(folder, "--config.batch_size=3", saved=path)[2] == 3


def test_images_that_cannot_be_read_are_left_out(tmp_path):
    folder = write(tmp_path / "images", classes=6, images=4, size=(200, 200))
    files = sorted(folder.rglob("*.png"))
    for path in files[::4]:
        path.write_text("no image")
    assert fit(folder)[0] == 224
    for path in files:
        path.write_text("no image")
    with pytest.raises(DataError, match=r"no image can be read.*image_size"):
        fit(folder)


def test_base_is_not_changed(tmp_path):
    config = shrunk.shrink(config_lib.load_config("emoji"))
    assert fit_to_data(config) is config


def test_a_classifier_has_batches_of_single_images(tmp_path):
    folder = write(tmp_path / "images", classes=40, images=10, size=(8, 8))
    words = ["--config.task.name=classification", "--config.loss.name=cross_entropy"]
    _, _, batch_size, steps, _ = fit(folder, *words)
    assert batch_size == 64
    assert steps == max(200, round(10 * len(train_records(folder)) / 64))


def test_an_epoch_of_listed_pairs_is_the_pairs_of_training(tmp_path):
    folder = write(tmp_path / "images", classes=6, images=10, size=(8, 8))
    path = tmp_path / "pairs.csv"
    words = [f"--config.data.dir={folder}", f"--config.task.file={path}"]
    config = config_lib.load_config("pairs", words)
    names = list_ids(create_records(config.data)["train"])
    other = list_ids(create_records(config.data)["test"])[0]
    pairs = [*itertools.islice(itertools.combinations(names, 2), 500)]
    pairs.append((names[0], other))
    rows = [f"{a},{b},{number % 2}" for number, (a, b) in enumerate(pairs)]
    path.write_text("\n".join(["a,b,similar", *rows]))
    config.batch_size = 16
    assert fit_to_data(config).num_steps == round(10 * 500 / 16)
    config.batch_size = None
    # 64 images, or as many as there are.
    expected = on_all_devices(min(64, len(names)) // 2)
    assert fit_to_data(config).batch_size == expected
    # The error is that of the task.
    config.task.file = ""
    assert fit_to_data(config).num_steps == 200
