"""Runs on listed pairs: what they learn, refusals, and runs that stop and go on."""

import json

from flax import nnx
from helpers import shrunk
from helpers.commands import run_command
from helpers.stopped import train_until_saved
import jax
import numpy as np
import optax
import pytest

from deeprank_jax import config as config_lib
from deeprank_jax import losses
from deeprank_jax.distributed import devices
from deeprank_jax.errors import CheckpointError, ConfigError, DataError
from deeprank_jax.experiments import evaluate
from deeprank_jax.export import export_run
from deeprank_jax.models import layers
from deeprank_jax.training import experiment, final_report, loop, progress, tasks
from deeprank_jax.training import step as step_lib
from deeprank_jax.training.tasks import pairs as pairs_task

VALUES = {
    "task.name": "pairs",
    "loss.name": "pair_contrastive",
    "data.source.name": "unlabelled",
    "data.source.test_share": 0.3,
    "data.source.validation_share": 0.3,
    "evaluation.best_metric": "pairs/roc_auc",
}


def create_config(images, file, **values):
    files = dict.fromkeys(("task.file", "evaluation.evaluators.pairs.file"), str(file))
    values = {**VALUES, **files, **values}
    return shrunk.create_config(images, **values)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return shrunk.write_images(tmp_path_factory.mktemp("images"), num_classes=12)


def kind_of(name):
    """Returns the kind of an image: four colours in turn, which no colour tells."""
    return int(name.split("/")[0].removeprefix("class ")) // 4


@pytest.fixture(scope="module")
def pairs(images, tmp_path_factory):
    """Returns a file of pairs by kind, drawn without regard to splits."""
    names = sorted(str(path.relative_to(images)) for path in images.rglob("*.png"))
    rng = np.random.default_rng(0)
    drawn = {tuple(sorted(rng.choice(240, 2, replace=False))) for _ in range(1500)}
    drawn = [(names[a], names[b]) for a, b in drawn]
    rows = [(a, b, str(kind_of(a) == kind_of(b))) for a, b in drawn]
    path = tmp_path_factory.mktemp("pairs") / "pairs.csv"
    path.write_text("\n".join(["a,b,similar", *map(",".join, rows)]))
    return path


@pytest.fixture(scope="module")
def trained(images, pairs, tmp_path_factory):
    """Returns the folder of a run that never stopped."""
    workdir = tmp_path_factory.mktemp("pairs_task") / "run"
    loop.train(create_config(images, pairs), workdir)
    return workdir


def test_a_run_ends_with_metrics_and_intervals_of_pairs(trained, pairs):
    results = json.loads((trained / "results.json").read_text())
    intervals = json.loads((trained / "intervals.json").read_text())
    assert results.keys() == {"validation", "test"}
    for split, evaluators in results.items():
        assert evaluators.keys() == {"retrieval", "triplets", "pairs"}
        metrics = evaluators["pairs"]
        assert metrics["roc_auc"].keys() == {"model", "untrained", "pixels"}
        assert 50 < metrics["num_pairs"]["model"] < 400
        ends = intervals[split]["pairs"]["roc_auc"]["model"]
        assert ends["low"] < metrics["roc_auc"]["model"] < ends["high"]
    page = (trained / "report" / "index.html").read_text(encoding="utf-8")
    assert "contrastive on listed pairs, margin 0.7" in page
    assert "others have an image of another split" in page
    assert "8 steps of 8 pairs" in page
    lines = (trained / "metrics.jsonl").read_text().splitlines()
    names = {name for line in map(json.loads, lines) for name in line}
    assert {
        "train/positive_distance", "train/negative_distance",
        "train/sampler_pairs/similar", "validation/pairs/roc_auc",
    } <= names  # fmt: skip


def test_training_uses_the_pairs_of_training_images_alone(images, pairs, tmp_path):
    (tmp_path / "pairs_train.csv").write_text(pairs.read_text())
    file = str(tmp_path / "pairs_{split}.csv")
    config = create_config(images, pairs, **{"task.file": file})
    with experiment.create_experiment(config, tmp_path) as run:
        records = run.records["train"]
        with run.stream(0) as stream:
            batch = next(stream)
    assert batch.images.shape == (8, 2, 16, 16, 3)
    kinds = np.vectorize(lambda index: kind_of(records.describe(int(index))))
    a, b = kinds(batch.groups.indices).T
    np.testing.assert_array_equal(a == b, batch.groups.is_similar)
    listed = {
        (row[0], row[1])
        for row in (line.split(",") for line in pairs.read_text().splitlines())
    }
    for indices in batch.groups.indices:
        assert tuple(map(records.describe, indices)) in listed


def test_steps_bring_similar_pairs_nearer_than_different_ones(images, pairs, tmp_path):
    values = {"num_steps": 60, "eval_every": 60, "checkpoint_every": 60}
    values |= {"batch_size": 32, "optimizer.learning_rate": 1e-2, "log_every": 10}
    loop.train(create_config(images, pairs, **values), tmp_path)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    entries = [x for x in map(json.loads, lines) if "train/loss" in x]
    assert entries[-1]["train/loss"] < 0.6 * entries[0]["train/loss"]
    ratio = lambda x: x["train/negative_distance"] / x["train/positive_distance"]
    assert ratio(entries[-1]) > 2 * ratio(entries[0])
    results = json.loads((tmp_path / "results.json").read_text())["test"]["pairs"]
    # Of images that were in no pair of training.
    assert results["roc_auc"]["model"] > results["roc_auc"]["untrained"] + 0.1


class Flat(nnx.Module):
    """A linear map of the pixels, which treats each image alone."""

    def __init__(self):
        self.linear = nnx.Linear(48, 4, rngs=nnx.Rngs(0))

    def __call__(self, images, key=None):
        pixels = images.reshape(len(images), -1) / 255.0
        return layers.l2_normalize(self.linear(pixels))


@pytest.mark.parametrize("num_different", [0, 1, 6])
def test_distances_are_those_of_the_batch_on_devices_and_in_parts(num_different):
    tx = optax.sgd(0.0)
    objective = pairs_task.PairObjective(
        losses.create_loss({"name": VALUES["loss.name"]})
    )
    rng = np.random.default_rng(0)
    batch = {
        "images": rng.integers(0, 256, (16, 2, 4, 4, 3), np.uint8),
        "is_similar": (np.arange(16) >= num_different).astype(np.int32),
    }
    outputs = np.asarray(Flat()(batch["images"].reshape(32, 4, 4, 3)))
    a, b = outputs.reshape(16, 2, 4).swapaxes(0, 1)
    distances = np.square(a - b).sum(axis=1)
    graphdef, state = step_lib.create_train_state(Flat(), tx)
    for num_devices, parts in ((1, 1), (4, 1), (1, 4), (2, 2)):
        step = step_lib.make_train_step(graphdef, tx, objective, accumulate=parts)
        step = jax.vmap(step, (None, 0), None, axis_name=devices.DATA_AXIS)
        share = lambda x, n=num_devices: x.reshape(n, -1, *x.shape[1:])
        _, metrics = jax.jit(step)(state, jax.tree.map(share, batch))
        for name, kind in (("positive", 1), ("negative", 0)):
            values = distances[batch["is_similar"] == kind]
            mean = metrics[f"{name}_distance"]
            # Each device's or part's share of the numbers, of which there may be none.
            assert mean.count * num_devices * parts == len(values)
            if len(values):
                expected = values.mean()
                np.testing.assert_allclose(mean.total / mean.count, expected, rtol=1e-5)


def test_a_mean_of_nothing_is_left_out_and_no_other_number():
    mean = lambda total, count: step_lib.Mean(np.float32(total), np.float32(count))
    metrics = {"a": mean(3, 2), "b": mean(0, 0), "c": np.float32(np.nan)}
    values = progress._divide_means(metrics)
    assert values.keys() == {"a", "c"}
    assert values["a"] == 1.5
    # The writer refuses it.
    assert np.isnan(values["c"])


def test_a_distance_of_no_pair_is_not_logged(images, pairs, tmp_path):
    # The pairs of a step are of either kind, as the epoch has them.
    values = {"batch_size": 4, "log_every": 1}
    loop.train(create_config(images, pairs, **values), tmp_path)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    entries = [x for x in map(json.loads, lines) if "train/loss" in x]
    assert len(entries) == 8
    for entry in entries:
        for name, kind in (("positive", "similar"), ("negative", "different")):
            has_some = entry[f"train/sampler_pairs/{kind}"] > 0
            assert (f"train/{name}_distance" in entry) == has_some
    assert any("train/positive_distance" not in entry for entry in entries)


def test_a_run_that_stopped_ends_with_the_same_bits(images, pairs, trained, tmp_path):
    config = create_config(images, pairs)
    train_until_saved(config, tmp_path, 4)
    loop.train(config, tmp_path)
    for name in ("results.json", "intervals.json"):
        assert (tmp_path / name).read_bytes() == (trained / name).read_bytes()


def test_a_run_finds_its_pairs_from_any_folder(images, pairs, tmp_path, monkeypatch):
    for split in ("train", "validation", "test"):
        (tmp_path / f"pairs_{split}.csv").write_text(pairs.read_text())
    monkeypatch.chdir(tmp_path)
    workdir = tmp_path / "run"
    train_until_saved(create_config(images, "pairs_{split}.csv"), workdir, 4)
    monkeypatch.chdir(tmp_path.parent)
    saved = config_lib.read_run_config(workdir)
    path = str(tmp_path / "pairs_{split}.csv")
    assert saved.task.file == path
    assert saved.evaluation.evaluators.pairs.file == path
    loop.train(create_config(images, path), workdir)
    network = evaluate.load_run(workdir)
    measured = evaluate.evaluate(network, evaluate.open_split(network.config))
    assert measured.results["pairs"]["num_pairs"]["model"] > 50


def test_a_run_does_not_go_on_with_other_pairs(images, pairs, tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text(pairs.read_text())
    config = create_config(images, path)
    train_until_saved(config, tmp_path / "run", 4)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-100]))
    with pytest.raises(CheckpointError, match="made with the sampler's pairs"):
        loop.train(config, tmp_path / "run")


def test_a_run_is_exported_and_evaluated_on_other_images(
    images, pairs, trained, tmp_path
):
    export_run(trained, tmp_path / "model", force_threshold=True)
    # The path of the file is no part of the model.
    exported_config = (tmp_path / "model" / "config.json").read_text()
    assert str(pairs.parent) not in exported_config
    assert json.loads(exported_config)["task"]["file"] == "pairs.csv"
    card = (tmp_path / "model" / "README.md").read_text()
    assert "on pairs of images, each similar or not" in card
    network = evaluate.load_run(trained)
    dataset = evaluate.open_images(images, network)
    assert "pairs" not in dataset.config.evaluation.evaluators
    assert "pairs" in network.config.evaluation.evaluators


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"loss": "contrastive"}, "contrastive.* takes embeddings.*pair_contrastive"),
        ({"task": "ranking"}, "pair_contrastive.* takes pairs.*ranking"),
        ({"task.file": ""}, r"config\.task\.file must be the path of a file of pairs"),
        ({"data.augment.mixing": 0.5}, r"mixing=0\.5 would show a part of one image"),
        ({"model.ensemble": ({},)}, r'ensemble is for config\.task\.name="ranking"'),
    ],
)
def test_a_config_that_does_not_fit_is_refused(images, pairs, values, message):
    config = create_config(images, pairs)
    config.unlock()
    config.update_from_flattened_dict(
        {x: dict(name=v) if x in ("loss", "task") else v for x, v in values.items()}
    )
    if "task" in values or "loss" in values:
        section, name = next(iter(values.items()))
        config[section] = dict(name=name)
    with pytest.raises(ConfigError, match=message):
        tasks.create_task(config, experiment.create_run_relevance(config))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], r"pairs\.csv: none of its 1 pairs has both images in unlabelled/train"),
        ([("train", "1")], "pairs of unlabelled/train are similar; add some that are"),
        ([("train", "1"), ("x", "0")], "names 'x', which is not an image"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(images, tmp_path, rows, message):
    config = create_config(images, tmp_path / "pairs.csv")
    names = {
        split: [records.describe(i) for i in (0, 2, 4)]
        for split, records in experiment.create_records(config.data).items()
    }
    lines = [f"{names['train'][0]},{names['test'][0]},1"]
    for number, (split, value) in enumerate(rows):
        other = names[split][1 + number] if split in names else split
        lines.append(f"{names['train'][0]},{other},{value}")
    (tmp_path / "pairs.csv").write_text("\n".join(["a,b,similar", *lines]))
    with pytest.raises(DataError, match=message):
        experiment.create_experiment(config, tmp_path / "run")


def test_a_best_metric_of_pairs_needs_pairs_of_validation(images, pairs, tmp_path):
    config = create_config(images, pairs)
    records = experiment.create_records(config.data)["train"]
    name = [records.describe(i) for i in range(4)]
    path = tmp_path / "pairs.csv"
    path.write_text(f"a,b,similar\n{name[0]},{name[1]},1\n{name[2]},{name[3]},0\n")
    config = create_config(images, path)
    with pytest.raises(ConfigError, match=r"best_metric.*pairs/roc_auc"):
        loop.train(config, tmp_path / "run")


def test_an_unknown_image_of_the_evaluator_s_file_is_named(images, pairs, tmp_path):
    path = tmp_path / "others.csv"
    path.write_text(f"{pairs.read_text()}\nclass 00/0.png,nowhere.png,0\n")
    values = {"evaluation.evaluators.pairs.file": str(path)}
    config = create_config(images, pairs, **values)
    with experiment.create_experiment(config, tmp_path / "run") as run:
        with pytest.raises(DataError, match=r"others\.csv: row .*'nowhere\.png'"):
            final_report.create_split_evaluations(run)


def test_evaluation_outside_the_run_names_an_unknown_image(
    images, pairs, trained, tmp_path
):
    path = tmp_path / "others.csv"
    path.write_text(f"{pairs.read_text()}\nclass 00/0.png,nowhere.png,0\n")
    network = evaluate.load_run(trained)
    network.config.evaluation.evaluators.pairs.file = str(path)
    dataset = evaluate.open_split(network.config)
    with pytest.raises(DataError, match=r"others\.csv: row .*'nowhere\.png'"):
        evaluate.evaluate(network, dataset)


def test_the_command_draws_pairs_within_splits(images, tmp_path):
    path = tmp_path / "drawn.csv"
    flags = ["--config=folder", f"--config.data.dir={images}", f"--out={path}"]
    assert "Wrote" in run_command(["pairs", *flags, "--num=60"]).stdout
    rows = [line.split(",") for line in path.read_text().splitlines()]
    assert rows.pop(0) == ["a", "b", "similar"]
    assert len({frozenset(row[:2]) for row in rows}) == len(rows) == 180
    assert sum(int(row[2]) for row in rows) == 90
    for a, b, similar in rows:
        assert (a.split("/")[0] == b.split("/")[0]) == int(similar)
    again = path.read_bytes()
    run_command(["pairs", *flags, "--num=60", "--split=train"])
    assert len(path.read_text().splitlines()) == 61
    run_command(["pairs", *flags, "--num=60"])
    assert path.read_bytes() == again


def test_a_split_without_pairs_to_draw_is_named(images, tmp_path):
    flags = [f"--config.data.dir={images}", f"--out={tmp_path}/pairs.csv"]
    result = run_command(["pairs", "--config=unlabelled", *flags])
    assert result.returncode
    assert "unlabelled/train: " in result.stderr
    assert "classes has one image" in result.stderr
