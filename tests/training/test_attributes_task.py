"""Attributes by hand, in float64, and in runs."""

import json
import re

from helpers import shrunk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from deeprank_jax import losses
from deeprank_jax.config import read_run_config
from deeprank_jax.configs import digits_attributes
from deeprank_jax.data import create_records as create_splits
from deeprank_jax.data.records import Records
from deeprank_jax.errors import ConfigError, DataError
from deeprank_jax.experiments import evaluate
from deeprank_jax.export import export_run
from deeprank_jax.inference.model import Model
from deeprank_jax.relevance import SameClass
from deeprank_jax.training import experiment, loop, tasks
from deeprank_jax.training.tasks import attributes

WEIGHTS = (1.0, 0.5, 0.25)
SIZES = (4, 2, 3)
STOPS = tuple(np.cumsum(SIZES))
HEADS = tuple(
    attributes.Head(name=name, weight=weight, outputs=slice(stop - size, stop))
    for name, weight, size, stop in zip(
        ("digit", "parity", "size"), WEIGHTS, SIZES, STOPS, strict=True
    )
)
AT_START = dict(step=0, key=jax.random.key(0))


def random_batch(num=6):
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(num, sum(SIZES)))
    labels = np.stack([rng.integers(0, size, num) for size in SIZES], axis=1)
    return outputs, labels


def loss_by_hand(outputs, labels, smoothing):
    """Returns the losses `[B]`, head by head and image by image."""
    values = np.zeros(len(outputs))
    for row, (logits, classes) in enumerate(zip(outputs, labels, strict=True)):
        start = 0
        for weight, size, label in zip(WEIGHTS, SIZES, classes, strict=True):
            part = logits[start : start + size]
            log_p = part - np.log(np.sum(np.exp(part)))
            target = np.full(size, smoothing / size)
            target[label] += 1 - smoothing
            values[row] -= weight * np.sum(target * log_p)
            start += size
    return values


def create_objective(smoothing):
    loss = losses.create_loss({"name": "cross_entropy", "label_smoothing": smoothing})
    return attributes.AttributesObjective(loss, HEADS)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_and_its_gradient_by_hand(smoothing):
    outputs, labels = random_batch()
    objective = create_objective(smoothing)
    batch = {"labels": jnp.asarray(labels)}
    total = lambda x: objective(x[:, None], batch, **AT_START)[0]
    values = total(jnp.asarray(outputs, jnp.float32))
    np.testing.assert_allclose(
        values, loss_by_hand(outputs, labels, smoothing), rtol=1e-5
    )
    gradient = jax.grad(lambda x: total(x).sum())(jnp.asarray(outputs, jnp.float32))
    for place in np.ndindex(outputs.shape):
        step = np.zeros_like(outputs)
        step[place] = 1e-6
        ends = [loss_by_hand(x, labels, smoothing).sum()
                for x in (outputs + step, outputs - step)]  # fmt: skip
        assert gradient[place] == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-5)


def test_heads_do_not_depend_on_each_other():
    outputs, labels = random_batch()
    objective = create_objective(0.1)

    def measure(outputs, labels):
        batch = {"labels": jnp.asarray(labels)}
        return objective(jnp.asarray(outputs)[:, None], batch, **AT_START)[1]

    before = measure(outputs, labels)
    assert before.keys() == {
        f"{kind}/{head.name}" for kind in ("head_loss", "top1") for head in HEADS
    }
    changed, others = outputs.copy(), labels.copy()
    changed[:, HEADS[1].outputs] *= 3
    others[:, 1] = 1 - others[:, 1]
    after = measure(changed, others)
    for name, value in before.items():
        assert (name.endswith("/parity")) == (float(value) != float(after[name])), name


def test_accuracies_are_those_of_each_part_of_the_outputs():
    outputs, labels = random_batch()
    batch = {"labels": jnp.asarray(labels)}
    metrics = create_objective(0.0)(jnp.asarray(outputs)[:, None], batch, **AT_START)[1]
    for column, head in enumerate(HEADS):
        right = np.argmax(outputs[:, head.outputs], axis=1) == labels[:, column]
        assert metrics[f"top1/{head.name}"] == pytest.approx(right.mean())


def create_records(num=40):
    rng = np.random.default_rng(0)
    digit = np.arange(num) % 10
    columns = {
        "size": rng.integers(0, 3, num).astype(np.int32) + 4,  # No such numbers below.
        "one": np.full(num, 2, np.int32),
        "original": (np.arange(num) // 2).astype(np.int32),
    }
    return Records(
        name="digits/train",
        labels=np.stack([digit % 2, digit], axis=1).astype(np.int32),
        level_names=("parity", "digit"),
        label_names=(("even", "odd"), tuple("0123456789")),
        read=lambda index: b"",
        describe=str,
        columns=columns,
    )


def create_task(loss=None, **options):
    config = digits_attributes.get_config()
    config.task = dict(name="attributes", **options)
    if loss is not None:
        config.loss = dict(name=loss)
    return tasks.create_task(config, SameClass())


def test_heads_are_slices_of_one_linear_map_and_weight_0_gives_none():
    task = create_task(weights={"digit": 1.0, "parity": 0.0, "size": 0.5})
    task.prepare({"train": create_records()})
    labelled = task.labelled
    assert [x.name for x in labelled.heads] == ["digit", "size"]
    assert [x.outputs for x in labelled.heads] == [slice(0, 10), slice(10, 13)]
    assert [x.weight for x in labelled.heads] == [1.0, 0.5]
    assert labelled.num_outputs == 13
    assert task.create_model().head.kernel.shape[1] == 13
    np.testing.assert_array_equal(labelled.labels[:, 0], np.arange(40) % 10)
    assert set(labelled.labels[:, 1]) == {0, 1, 2}
    assert list(task.METRICS) == ["top1/digit", "top1/size"]
    assert len(labelled.held_out) == 4
    both = np.sort(np.concatenate([labelled.training, labelled.held_out]))
    np.testing.assert_array_equal(both, np.arange(40))


def test_each_class_has_as_many_vectors_as_the_loss_asks_for():
    config = digits_attributes.get_config()
    config.task = dict(name="attributes", weights={"digit": 1.0, "size": 0.5})
    config.loss = dict(name="arcface", sub_centers=3)
    task = tasks.create_task(config, SameClass())
    task.prepare({"train": create_records()})
    model = task.create_model()
    assert model.head.kernel.shape[1] == 3 * 13
    model.eval()  # BatchNorm would average over devices.
    assert model(np.zeros((2, 32, 32, 3), np.uint8)).shape == (2, 13)


def test_images_of_one_original_are_held_out_together():
    task = create_task(weights={"digit": 1.0}, held_out=0.3, held_out_by="original")
    records = create_records()
    task.prepare({"train": records})
    original = records.columns["original"]
    held_out, training = (
        set(original[x]) for x in (task.labelled.held_out, task.labelled.training)
    )
    assert len(held_out) == 6
    assert len(training) == 14
    assert not held_out & training


def test_the_sampler_gives_the_labels_of_each_head():
    task = create_task(weights={"size": 1.0, "digit": 1.0})
    records = create_records()
    task.prepare({"train": records})
    sampler = task.create_sampler({}, shard=0, num_shards=1)
    batch = sampler.sample(3, 8)
    rows = batch.indices[:, 0]
    assert not set(rows) & set(task.labelled.held_out)
    np.testing.assert_array_equal(batch.labels[:, 0], rows % 10)
    np.testing.assert_array_equal(batch.labels[:, 1], records.columns["size"][rows] - 4)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, "config.task.weights must be finite, at least 0 and not all 0, got none"),
        ({"digit": -1.0}, "config.task.weights must be finite, at least 0"),
        ({"digit": 0.0, "size": 0.0}, "config.task.weights must be finite, at least 0"),
        ({"digit": float("nan")}, "config.task.weights must be finite, at least 0"),
        ({"digti": 1.0}, "config.task.weights names 'digti' (did you mean 'digit'?)"),
        ({"one": 1.0}, "config.task.weights names one, which is the same for all rec"),
    ],
    ids=str,
)
def test_wrong_weights_are_named(weights, message):
    with pytest.raises((ConfigError, DataError), match=re.escape(message)):
        create_task(weights=weights).prepare({"train": create_records()})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs config.task.weights: weight of each attribute's loss"),
        ({"weights": {"digit": 1.0}, "held_out": 1.0}, "config.task.held_out must be"),
        ({"weights": {"digit": 1.0}, "held_out_by": "origin"}, "did you mean 'origina"),
        ({"weights": {"digit": 1.0}, "held_out_by": "one"}, "held_out_by names one, w"),
        ({"weights": {"digit": 1.0}, "loss": "center"}, "takes logits_and_features, "),
        ({"weights": {"digit": 1.0}, "loss": "supcon"}, 'name="attributes" gives log'),
    ],
    ids=str,
)
def test_other_wrong_options_are_named(options, message):
    with pytest.raises((ConfigError, DataError), match=re.escape(message)):
        create_task(**options).prepare({"train": create_records()})


@pytest.fixture(scope="module")
def trained(few_digits, tmp_path_factory):
    """Returns the folder of a short run with a vector per class."""
    workdir = tmp_path_factory.mktemp("attributes") / "run"
    config = shrunk.shrink(
        digits_attributes.get_config(),
        **{"data.dir": str(few_digits), "loss": {"name": "normface"}},
    )
    config.evaluation.best_metric = "attributes/top1/parity"
    loop.train(config, workdir)
    return workdir


def test_a_run_measures_each_attribute_and_shows_the_cosines(trained):
    results = json.loads((trained / "results.json").read_text())
    accuracies = results["held out"]["attributes"]
    assert accuracies.keys() == {"top1/digit", "top1/parity", "top1/size"}
    for systems in accuracies.values():
        assert systems.keys() == {"model", "untrained"}
    cosines = results["test"]["shared_attributes"]
    assert cosines["shared_digit+parity+size"].keys() == {
        "model",
        "untrained",
        "pixels",
    }
    log = [json.loads(x) for x in (trained / "metrics.jsonl").read_text().splitlines()]
    last = {name: x for entry in log for name, x in entry.items()}
    assert {"train/top1/size", "train/head_loss/digit"} <= last.keys()
    assert "validation/attributes/top1/digit" in last
    page = (trained / "report" / "index.html").read_text("utf-8")
    for title in ("Mean cosine by digit", "Mean cosine by digit, size"):
        assert f"<figcaption>{title}<small>" in page
        assert f'aria-label="{title}"' in page
    assert "one per attribute: digit 1, parity 0.5, size 0.5" in page


def test_the_exported_model_embeds_as_the_run_does(trained, tmp_path):
    model = Model(export_run(trained, tmp_path / "model"))
    assert "several attributes" in (tmp_path / "model" / "README.md").read_text()
    config = read_run_config(trained)
    records = create_splits(config.data)["test"]
    with experiment.create_reader(config, records) as reader:
        embeddings = model.embed_prepared(reader.load(np.arange(len(records)))[0])
    with np.load(trained / "test_embeddings.npz") as file:
        np.testing.assert_allclose(embeddings, file["embeddings"], atol=1e-5)


def test_a_run_is_evaluated_again_and_on_other_images(trained, tmp_path):
    network = evaluate.load_run(trained)
    dataset = evaluate.open_split(network.config, "test")
    again = evaluate.evaluate(network, dataset, tmp_path / "digits").results
    results = json.loads((trained / "results.json").read_text())["test"]
    for name, systems in again["shared_attributes"].items():
        expected = results["shared_attributes"][name]["model"]
        assert systems["model"] == pytest.approx(expected, abs=1e-5)
    page = (tmp_path / "digits" / "report" / "index.html").read_text("utf-8")
    assert 'aria-label="Mean cosine by digit"' in page
    # Other images have no such attributes.
    images = evaluate.open_images(shrunk.write_images(tmp_path / "images"), network)
    assert evaluate.evaluate(network, images).results.keys() == {
        "retrieval",
        "triplets",
    }
