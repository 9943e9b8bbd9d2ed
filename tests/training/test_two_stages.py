"""First the trunk learns classes, then the network ranks from where it is."""

import json
import logging

from helpers import shrunk
import jax
import numpy as np
import pytest

from deeprank_jax.descriptors.pixels import center_and_normalize
from deeprank_jax.training import (
    checkpoints,
    experiment,
    final_report,
    init_from,
    loop,
    network,
)
from deeprank_jax.training.tasks import classification

SYSTEMS = {"model", "untrained", "frozen", "pixels"}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return shrunk.write_images(tmp_path_factory.mktemp("images"), num_classes=12)


@pytest.fixture(scope="module")
def first_stage(images, tmp_path_factory):
    """Returns the workdir of a classifier that has learned something."""
    workdir = tmp_path_factory.mktemp("first")
    config = shrunk.create_config(
        images,
        **{
            "task": "classification",
            "task.held_out": 0.3,
            "loss": "cross_entropy",
            "num_steps": 48,
            "batch_size": 16,
            "eval_every": 24,
            "evaluation.best_metric": "classification/top1",
            "optimizer.learning_rate": 0.03,
        },
    )
    loop.train(config, workdir)
    return workdir


def create_network(config):
    return network.create_network(config, lambda: network.create_model(config, None))


def names_and_arrays(state):
    leaves = jax.tree.leaves_with_path((state.params, state.model_state))
    return {jax.tree_util.keystr(path): np.asarray(x) for path, x in leaves}


def test_a_classifier_is_asked_about_what_it_did_not_see(first_stage):
    results = json.loads((first_stage / "results.json").read_text())
    told = results["held out"]["classification"]
    assert set(told) == {"top1", "top5"}
    assert told["top1"]["model"] > 0.8
    assert told["top1"]["untrained"] < 0.6
    assert set(results["test"]) == {"retrieval", "triplets"}
    lines = (first_stage / "metrics.jsonl").read_text().splitlines()
    named = set().union(*map(json.loads, lines))
    assert {"train/top1", "train/top5", "train/loss"} <= named
    assert {"validation/classification/top1", "validation/retrieval/map@r"} <= named
    assert (first_stage / "report" / "index.html").exists()


def test_ranking_starts_from_the_first_stage(images, first_stage, caplog):
    config = shrunk.create_config(images)
    plain = create_network(config)[2]
    config.init_from = str(first_stage)
    with caplog.at_level(logging.INFO):
        started = create_network(config)[2]
    assert f"{first_stage}/checkpoints/" in caplog.text
    assert "Loaded: the trunk (10 variables), nothing." in caplog.text
    assert "Kept as they were: embedding/bias, embedding/kernel, paths" in caplog.text
    assert "Not loaded: head/bias, head/kernel." in caplog.text
    saved = checkpoints.read_network(first_stage)
    arrays = saved.arrays
    assert saved.where.parent == first_stage / "checkpoints"
    before, after = names_and_arrays(plain), names_and_arrays(started)
    for name, array in after.items():
        in_trunk = "trunk" in name
        if in_trunk and "kernel" in name:
            assert np.abs(array - before[name]).max() > 1e-3, name
        if not in_trunk:
            np.testing.assert_array_equal(array, before[name])
    kernel = arrays["params/trunk/convs/0/kernel/value"]
    assert any(
        np.array_equal(array, kernel)
        for array in after.values()
        if array.shape == kernel.shape
    )
    assert int(started.step) == 0


def test_frozen_is_the_trunk_as_it_was_before_ranking(images, first_stage, tmp_path):
    config = shrunk.create_config(images, init_from=str(first_stage))
    config.optimizer.learning_rate = 0.03
    loop.train(config, tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())["test"]
    assert set(results["retrieval"]["map@r"]) == SYSTEMS
    reported = {
        (evaluator, metric): systems["frozen"]
        for evaluator, metrics in results.items()
        for metric, systems in metrics.items()
    }
    with experiment.create_experiment(config, tmp_path) as parts:
        parts.restore(parts.checkpoints.latest_step())
        test = final_report.create_split_evaluations(parts)["test"]

        def measure(state):
            vectors, ok = test.embed(lambda x: parts.features(state, x), "test")
            vectors[ok] = center_and_normalize(vectors[ok])
            measured = test.measure(vectors, ok)
            return {
                (name, key): x for name in measured for key, x in measured[name].items()
            }

        before, after = measure(parts.create_initial_state()), measure(parts.state)
    assert reported == pytest.approx(before, rel=1e-6)
    assert before["retrieval", "map@r"] != pytest.approx(after["retrieval", "map@r"])


def test_a_step_can_be_named(first_stage):
    steps = sorted(int(p.name) for p in (first_stage / "checkpoints").iterdir())
    for step in steps:
        where = first_stage / "checkpoints" / str(step)
        assert checkpoints.read_network(where).where == where
    with pytest.raises(checkpoints.CheckpointError, match="no checkpoint is there"):
        checkpoints.read_network(first_stage / "checkpoints" / "7")


@pytest.mark.parametrize("path", ["nowhere", "."])
def test_a_place_without_a_run_is_refused(tmp_path, path):
    with pytest.raises(checkpoints.CheckpointError, match="no checkpoint is there"):
        checkpoints.read_network(tmp_path / path)


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ((4, 16), r"trunk differs in trunk/convs/1/kernel \(\(3, 3, 4, 8\)"),
        ((4, 8, 8), r"trunk/convs/2/kernel \(missing instead of"),
        ((4,), r"trunk/convs/1/kernel \(\(3, 3, 4, 8\) instead of missing"),
    ],
)
def test_another_architecture_is_refused(images, first_stage, widths, message):
    config = shrunk.create_config(images, **{"model.trunk.widths": widths})
    state = create_network(config)[2]
    with pytest.raises(checkpoints.CheckpointError, match=message):
        init_from.load_state(state, first_stage)


def test_options_that_change_no_shape_are_compared(images, first_stage):
    config = shrunk.create_config(images, init_from=str(first_stage))
    create_network(config)
    config.model.trunk = dict(name="convnet", widths=(4, 8), stem_kernel=3)
    with pytest.raises(checkpoints.CheckpointError, match=r"trunk\.stem_kernel \(None"):
        create_network(config)


def test_a_pooling_may_be_another(tmp_path):
    """As for published weights, which have no power of it."""
    mean = {"params/trunk/stem/value": np.zeros(3)}
    gem = {**mean, "params/trunk/pooling/power/value": np.zeros(())}
    options = {"model.trunk.name": "resnet50"}
    for ours, theirs in ((gem, mean), (mean, gem)):
        config = {**options, "model.trunk.pooling": "gem"} if theirs is gem else options
        saved = checkpoints.Saved(where=tmp_path, arrays=theirs, config=config)
        trunk = {"name": "resnet50", **({"pooling": "gem"} if ours is gem else {})}
        init_from._check_trunk(ours, saved, trunk)


def test_a_damaged_checkpoint_is_refused(first_stage, tmp_path, images):
    damaged = tmp_path / "checkpoints"
    (damaged / "5").mkdir(parents=True)
    with pytest.raises(checkpoints.CheckpointError, match="damaged"):
        checkpoints.read_network(damaged / "5")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"task.level": 1}, "level=1 is not one of the records' 1 levels"),
        ({"task.held_out": 0.0}, "held_out must be above 0"),
    ],
)
def test_classes_that_cannot_be_are_refused(images, tmp_path, values, message):
    config = shrunk.create_config(
        images, task="classification", loss="cross_entropy", **values
    )
    with pytest.raises(ValueError, match=message):
        experiment.create_experiment(config, tmp_path)


def test_held_out_images_are_not_learned_from(images, tmp_path):
    config = shrunk.create_config(images, task="classification", loss="cross_entropy")
    with experiment.create_experiment(config, tmp_path) as parts:
        classes = parts.task.classes
        assert isinstance(classes, classification.Classes)
        drawn = [parts.sampler.sample(step, 8) for step in range(50)]
        seen = np.unique(np.concatenate([x.indices for x in drawn]))
        np.testing.assert_array_equal(seen, classes.training)
        joined = np.union1d(classes.training, classes.held_out)
        np.testing.assert_array_equal(joined, np.arange(len(parts.records["train"])))
        assert len(joined) == len(classes.training) + len(classes.held_out)
        assert len(classes.held_out) == round(0.1 * len(joined))
        for x in drawn:
            labels = parts.records["train"].labels[x.indices[:, 0], -1]
            names = [str(label) for label in labels]
            assert names == [classes.names[i] for i in x.labels[:, 0]]


def test_an_unknown_task_is_refused(images, tmp_path):
    with pytest.raises(ValueError, match="'regression' is not known"):
        experiment.create_experiment(
            shrunk.create_config(images, task="regression"), tmp_path
        )


def test_the_best_checkpoint_is_taken_and_not_the_last(tmp_path):
    saved = checkpoints.Checkpoints(tmp_path / "checkpoints", best_metric="score")
    config = {"config": {"evaluation.best_metric": "score"}}
    for step, score in ((1, 0.9), (2, 0.4)):
        state = {"params": {"x": jax.numpy.full(2, float(step))}}
        saved.save(step, state, config, {"score": score})
    saved.close()
    best = checkpoints.read_network(tmp_path)
    assert best.where.name == "1"
    np.testing.assert_array_equal(best.arrays["params/x"], [1.0, 1.0])
    assert checkpoints.read_network(best.where.parent / "2").where.name == "2"
