"""Evaluation of exported models and runs: the same numbers, usable labels, a report."""

import json
import shutil

from helpers import shrunk
import numpy as np
import pytest

from deeprank_jax.cli.__main__ import main
from deeprank_jax.config import load_config
from deeprank_jax.errors import DataError
from deeprank_jax.experiments import evaluate, features
from deeprank_jax.files import locks
from deeprank_jax.training.workdir import Workdir


@pytest.fixture(scope="session")
def others(tmp_path_factory):
    """Returns a folder of images of classes that the model was not trained on."""
    folder = tmp_path_factory.mktemp("others") / "others"
    return shrunk.write_images(folder, num_classes=10, num_images=2, size=20)


@pytest.fixture(scope="session")
def model(exported):
    return evaluate.load_model(exported)


@pytest.fixture(scope="session")
def run(trained):
    return evaluate.load_run(trained)


def test_a_run_on_its_own_split_gets_its_final_numbers(run, trained):
    dataset = evaluate.open_split(run.config, "test")
    evaluation = evaluate.evaluate(run, dataset)
    expected = json.loads((trained / "results.json").read_text())["test"]
    assert evaluation.results.keys() == expected.keys()
    for evaluator, metrics in expected.items():
        for metric, values in metrics.items():
            measured = evaluation.results[evaluator][metric]
            assert measured.keys() == values.keys() >= {"model", "untrained", "pixels"}
            assert measured == pytest.approx(values, abs=1e-6), metric
    assert evaluation.report is None


def test_a_model_gets_the_numbers_of_its_run(model, run, others):
    ours, theirs = (
        evaluate.evaluate(network, evaluate.open_images(others, network))
        for network in (model, run)
    )
    values = ours.results["retrieval"]["recall@1"]
    assert values.keys() == {"model", "pixels"}
    expected = theirs.results["retrieval"]["recall@1"]
    assert values["model"] == pytest.approx(expected["model"])
    assert values["pixels"] == expected["pixels"]
    assert ours.num_images == 20
    interval = ours.intervals["retrieval"]["recall@1"]["model"]
    assert interval["low"] <= values["model"] <= interval["high"]


def test_the_report_and_its_numbers_are_written(model, others, tmp_path):
    dataset = evaluate.open_images(others, model)
    evaluation = evaluate.evaluate(
        model, dataset, tmp_path / "out", command="evaluate-this"
    )
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results == {"images": evaluation.results}
    intervals = json.loads((tmp_path / "out" / "intervals.json").read_text())
    assert intervals == {"images": evaluation.intervals}
    page = evaluation.report.read_text()
    assert evaluation.report == tmp_path / "out" / "report" / "index.html"
    assert "evaluate-this" in page
    assert "searched for among all others" in page
    # The same folder serves the next evaluation.
    assert evaluate.evaluate(model, dataset, tmp_path / "out").report.exists()


def test_unlabelled_images_are_left_out(model, others, tmp_path):
    shutil.copytree(others, tmp_path / "mixed")
    shutil.copy(others / "class 00" / "0.png", tmp_path / "mixed" / "alone.png")
    dataset = evaluate.open_images(tmp_path / "mixed", model)
    assert len(dataset.records) == 20
    whole = evaluate.open_images(others, model).records
    for index in range(20):
        name = dataset.records.label_name(index)
        assert name == whole.label_name(index)
        assert f"/{name}/" in dataset.records.describe(index)
        assert dataset.records.read(index) == whole.read(index)


@pytest.fixture
def write_list(others, tmp_path):
    """Writes a list of the images with the given columns."""

    def write(**columns):
        paths = sorted(map(str, others.rglob("*.png")))
        values = {"path": lambda i: paths[i], **columns}
        rows = [",".join(values)]
        rows += [",".join(str(f(i)) for f in values.values()) for i in range(20)]
        (tmp_path / "list.csv").write_text("\n".join(rows))
        return tmp_path / "list.csv"

    return write


def test_labels_that_cannot_be_used_get_a_remedy(model, write_list, others, tmp_path):
    open_images = lambda path, **options: evaluate.open_images(path, model, **options)
    choice = "give --label_feature=COLUMN, one of .*kind, sort"
    path = write_list(kind=lambda i: i % 3, sort=lambda i: i)
    with pytest.raises(DataError, match=f"no image has a label; {choice}"):
        open_images(path)
    assert len(open_images(path, label_feature="kind").records) == 20
    with pytest.raises(DataError, match=f"has a label of its own, .* {choice}"):
        open_images(path, label_feature="sort")
    path = write_list(label=lambda i: "x")
    with pytest.raises(DataError, match="all 20 images have the same label"):
        open_images(path)
    with pytest.raises(DataError, match='no image has a label; add a column "label"'):
        open_images(write_list())
    with pytest.raises(DataError, match="put the images of each class into a folder"):
        open_images(others / "class 01")
    (tmp_path / "list.txt").write_text("a.png\n")
    with pytest.raises(DataError, match=r'give a \.csv with the columns "path" and'):
        open_images(tmp_path / "list.txt")


def test_a_split_that_does_not_exist_is_refused(run):
    with pytest.raises(DataError, match="--split=tset does not exist; give train, val"):
        evaluate.open_split(run.config, "tset")


def test_the_run_is_measured_without_its_own_data(run, others, photos):
    hidden = photos.with_name("hidden")
    photos.rename(hidden)
    try:
        dataset = evaluate.open_images(others, run)
        assert evaluate.evaluate(run, dataset).num_images == 20
    finally:
        hidden.rename(photos)


def test_a_start_that_is_gone_leaves_out_the_untrained_network(run, tmp_path):
    config = run.config.copy_and_resolve_references()
    with config.unlocked():
        config.init_from = str(tmp_path / "gone")
    assert evaluate._create_before(config) == {}


def test_the_last_batch_is_padded():
    sizes = []

    def embed(images):
        sizes.append(len(images))
        return images.reshape(len(images), -1)[:, :2]

    embed_fn = evaluate._in_batches(embed)
    images = np.arange(5 * 12, dtype=np.uint8).reshape(5, 2, 2, 3)
    rows = [embed_fn(images[:3]), embed_fn(images[3:])]
    assert sizes == [3, 3]
    np.testing.assert_array_equal(np.concatenate(rows), images.reshape(5, -1)[:, :2])


def test_the_command_prints_a_table_or_json(exported, others, tmp_path, capsys):
    words = ["evaluate", str(others), f"--model={exported}"]
    main([*words, f"--out={tmp_path / 'out'}"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("20 images")
    assert lines[2].split() == ["metric", "model", "95", "%", "pixels"]
    assert any(line.startswith("retrieval/recall@1 ") for line in lines)
    assert lines[-1] == f"Wrote {tmp_path / 'out' / 'report' / 'index.html'}."
    main([*words, "--json"])
    values = json.loads(capsys.readouterr().out)
    assert values["results"]["retrieval"]["recall@1"].keys() == {"model", "pixels"}
    assert values["report"] is None


def test_the_command_takes_the_dataset_of_a_config(exported, photos, capsys):
    words = [f"--model={exported}", "--config=folder", "--split=validation"]
    main(["evaluate", *words, f"--config.data.dir={photos}", "--json"])
    values = json.loads(capsys.readouterr().out)
    assert values["split"] == "validation"
    assert load_config("folder").data.image_size != 16  # The model's own is used.


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x", "--config=emoji"], "give either IMAGES or --config"),
        ([], "give IMAGES, or the --config"),
        (["x", "--workdir=y"], "not allowed with argument"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(words, message, capsys):
    with pytest.raises(SystemExit) as exit_info:
        main(["evaluate", "--model=gone", *words])
    assert exit_info.value.code == 2
    assert message in capsys.readouterr().err


def test_a_folder_has_one_writer(model, others, tmp_path):
    dataset = evaluate.open_images(others, model)
    with (
        locks.inside(tmp_path, "--out"),
        pytest.raises(locks.LockedError, match=r"is writing .*give another --out"),
    ):
        evaluate.evaluate(model, dataset, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_features_of_a_run_that_is_being_trained_are_refused(trained):
    with (
        Workdir(trained).locked(),
        pytest.raises(locks.LockedError, match=r"is training in .*wait until"),
    ):
        features.embed_by_run(trained, {}, "data")
