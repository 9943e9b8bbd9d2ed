"""The tool that draws triplets, as a process on folders of a few images."""

import csv
import pathlib

from helpers import shrunk
from helpers.commands import run_command
import numpy as np
import pytest

from deeprank_jax import data, relevance
from deeprank_jax.configs import base as folder_config
from deeprank_jax.evaluation import split as split_lib
from deeprank_jax.sampling import create, triplet_file
from deeprank_jax.training import experiment

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Twelve classes of six images, some of them with names that are easily lost."""
    directory = tmp_path_factory.mktemp("images") / "own photos"
    shrunk.write_images(directory, num_classes=12, num_images=6)
    for folder in directory.iterdir():
        names = ["a-b.JPEG", "two words.png", 'x, "y".png']
        for number, name in enumerate(names):
            (folder / f"{number}.png").rename(folder / name)
    return directory


def run(*flags):
    return run_command(["triplets", *flags], folder=ROOT)


def draw(images, out, *flags):
    """Returns the rows of a file that is drawn by configs/base.py."""
    done = run(
        "--config=configs/base.py", f"--config.data.dir={images}",
        "--config.batch_size=8", f"--out={out}", *flags,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with open(out, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert f"Wrote {len(rows):,} triplets to {out}." in done.stdout
    return rows


def create_records(images):
    config = folder_config.get_config()
    config.data.dir = str(images)
    config.batch_size = 8
    splits = data.create_records(config.data)
    same_class = experiment.create_run_relevance(config)
    return config, same_class, relevance.attach(same_class, splits)


@pytest.mark.parametrize("seed", [0, 5])
@pytest.mark.parametrize("mode", ["importance", "uniform"])
def test_the_file_holds_what_the_run_would_draw(images, tmp_path, mode, seed):
    rows = draw(
        images, tmp_path / "t.csv", "--num=50", f"--mode={mode}", f"--seed={seed}"
    )
    config, same_class, splits = create_records(images)
    config.seed, config.sampler.mode = seed, mode
    sampler = create.create_sampler(config, splits["train"], same_class)
    batches = [sampler.sample(step, 8) for step in range(7)]
    read = triplet_file.read_triplets(tmp_path / "t.csv", splits["train"])
    for name, found in [("indices", read.indices), ("relevance", read.relevance)]:
        expected = np.concatenate([getattr(batch, name) for batch in batches])[:50]
        np.testing.assert_array_equal(found, expected)
    assert [int(row["step"]) for row in rows] == [n // 8 for n in range(50)]


def test_the_file_feeds_the_sampler_of_a_run(images, tmp_path):
    draw(images, tmp_path / "t.csv", "--num=40", "--split=validation")
    config, same_class, splits = create_records(images)
    config.sampler = dict(name="file", file=str(tmp_path / "t.csv"))
    read = triplet_file.read_triplets(tmp_path / "t.csv", splits["validation"])
    sampler = create.create_sampler(config, splits["validation"], same_class)
    drawn = np.concatenate([sampler.sample(step, 8).indices for step in range(5)])
    np.testing.assert_array_equal(
        drawn[np.lexsort(drawn.T)], read.indices[np.lexsort(read.indices.T)]
    )


def test_the_fixed_triplets_are_those_of_the_evaluation(images, tmp_path):
    rows = draw(
        images,
        tmp_path / "t.csv",
        "--evaluation",
        "--config.evaluation.evaluators.triplets.num=90",
    )
    config, same_class, splits = create_records(images)
    config.evaluation.evaluators.triplets.num = 90
    expected = split_lib.evaluation_triplets(
        config, splits["test"], same_class, tmp_path, "test"
    )
    assert len(rows) == 90
    read = triplet_file.read_triplets(tmp_path / "t.csv", splits["test"])
    np.testing.assert_array_equal(read.indices, expected)
    assert {row["relevance_positive"] for row in rows} == {"1.0"}


def write_lines(images, out, *flags):
    """Returns the lines of the file that is drawn as the Keras sampler would."""
    done = run(f"--input_directory={images}", f"--output_directory={out}", *flags)
    assert done.returncode == 0, done.stderr
    with open(out / "triplets.txt", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert f"Wrote {len(rows):,} triplets to {out / 'triplets.txt'}." in done.stdout
    return rows


def test_every_image_of_a_folder_gets_its_triplets(images, tmp_path):
    rows = write_lines(
        images, tmp_path / "out", "--num_pos_images=2", "--num_neg_images=3"
    )
    files = {str(path) for path in images.rglob("*.*")}
    assert len(files) == 72
    assert len(rows) == 72 * 2 * 3
    assert len(set(map(tuple, rows))) == len(rows)
    for side in range(3):
        assert {row[side] for row in rows} <= files
    assert {row[0] for row in rows} == files
    for query, positive, negative in rows:
        assert query != positive
        label = pathlib.Path(query).parent
        assert pathlib.Path(positive).parent == label
        assert pathlib.Path(negative).parent != label


def test_lines_are_read_back_from_anywhere(images, tmp_path, monkeypatch):
    rows = write_lines(images, tmp_path / "out", "--num_neg_images=9")
    monkeypatch.chdir(tmp_path)
    _, _, splits = create_records(images)
    for name in ("train", "test"):
        records = splits[name]
        others = [part for other, part in splits.items() if other != name]
        read = triplet_file.read_triplets(
            "out/triplets.txt", records, others=others, root=images
        )
        own = [str(images / records.describe(index)) for index in range(len(records))]
        assert [[own[index] for index in row] for row in read.indices] == [
            row for row in rows if set(row) <= set(own)
        ]
        assert len(read.indices) + read.num_left_out == len(rows)
        assert min(len(read.indices), read.num_left_out) > 50


def test_a_split_and_a_seed_can_be_chosen(images, tmp_path):
    _, _, splits = create_records(images)
    train = splits["train"]
    files = {str(images / train.describe(index)) for index in range(len(train))}
    first = write_lines(images, tmp_path / "out", "--split=train")
    assert {row[0] for row in first} == {name for row in first for name in row} == files
    assert write_lines(images, tmp_path / "out", "--split=train") == first
    assert write_lines(images, tmp_path / "out", "--split=train", "--seed=1") != first


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config=folder"], "config.data.dir is not set"),
        (["--input_directory=none"], "there is no such folder"),
        (
            ["--config=folder", "--config.data.dir={images}", "--out=t.json"],
            "--out=t.json: the name must end with .csv or .parquet or .txt",
        ),
        (
            ["--config=folder", "--config.batch_size=0"],
            "config.batch_size must be at least 1, got 0",
        ),
    ],
)
def test_an_input_that_cannot_be_used_gets_one_sentence(images, flags, message):
    done = run(*(flag.format(images=images) for flag in flags))
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "give either --config and --out or --input_directory"),
        (
            ["--config=folder", "--input_directory=x"],
            "give either --config and --out or --input_directory",
        ),
        (
            ["--config=folder", "--num_pos_images=3"],
            "--num_pos_images would change nothing here",
        ),
        (
            ["--config=folder", "--evaluation", "--mode=uniform"],
            "--mode would change nothing here",
        ),
        (
            ["--input_directory=x", "--num=3", "--out=x.csv"],
            "--out, --num would change nothing here",
        ),
    ],
)
def test_arguments_that_do_not_go_together_get_the_usage(flags, message):
    done = run(*flags)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: deeprank triplets")
    assert message in done.stderr
