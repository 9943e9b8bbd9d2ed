"""What the table learns from, chooses by and measures is each of a split of its own."""

import dataclasses
import types

from helpers import shrunk
import numpy as np
import pytest

from deeprank_jax.baselines.systems import System
from deeprank_jax.configs import base
from deeprank_jax.data import rated_triplets
from deeprank_jax.evaluation import calibration
from deeprank_jax.experiments.paper_table import dataset


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder_of = tmp_path_factory.mktemp("table")
    images = shrunk.write_images(folder_of / "photos", num_classes=14, num_images=8)
    config = shrunk.shrink(base.get_config())
    config.data.dir = str(images)
    return config


@pytest.fixture(scope="module")
def table(config, tmp_path_factory):
    return dataset.create_table(config, tmp_path_factory.mktemp("runs"))


def random_system(table, seed, **changes):
    num = sum(map(len, table.splits.values()))
    rng = np.random.default_rng(seed)
    embeddings = rng.normal(size=(num, 4)).astype(np.float32)
    fields = {"embeddings": embeddings, "ok": np.ones(num, bool)} | changes
    return System(**fields)


def split_of(table, triplets):
    return {
        name
        for name, rows in table.rows.items()
        if np.any((triplets >= rows.start) & (triplets < rows.stop))
    }


@pytest.mark.slow
def test_settings_are_chosen_on_validation_and_oasis_learns_from_training(table):
    assert {*table.rows} == {"train", "validation", "test"}
    assert split_of(table, table.validation_triplets) == {"validation"}
    assert split_of(table, np.concatenate(table.training_triplets())) == {"train"}
    labels = np.concatenate([x.labels[:, -1] for x in table.splits.values()])
    for triplets in table.validation_triplets, table.training_triplets()[0]:
        anchor, positive, negative = labels[triplets].T
        assert np.all((anchor == positive) & (anchor != negative))


def test_test_alone_is_measured(table):
    rows = table.rows["test"]
    num = sum(map(len, table.splits.values()))
    rng = np.random.default_rng(0)
    oks = rng.random((2, num)) < 0.9
    queries = rng.normal(size=(num, 4)).astype(np.float32)
    systems = [random_system(table, 1, ok=ok, queries=queries) for ok in oks]
    ok = table.measurable(systems)
    np.testing.assert_array_equal(ok, (oks[0] & oks[1])[rows])
    assert ok.sum() < oks[:, rows].sum(axis=1).min()
    found = table.measure(systems[0], ok)
    expected = table.test.measure_queries(
        systems[0].embeddings[rows], ok, queries[rows]
    ).scores
    assert found.keys() == expected.keys()
    for name, scores in found.items():
        np.testing.assert_array_equal(scores.values, expected[name].values)
    assert found["retrieval/num_queries"].value <= ok.sum()
    assert table.measure_whole(systems[0], ok) == {}


def test_pairs_are_of_the_finest_class_and_of_what_is_measured(table):
    system = random_system(table, 2)
    rows, classes = table.rows["test"], table.splits["test"].labels[:, -1]
    levels = types.SimpleNamespace(labels=np.stack([classes // 4, classes], axis=1))
    assert len(np.unique(classes)) > len(np.unique(levels.labels[:, 0])) > 1
    table = dataclasses.replace(table, splits={"test": levels})
    ok = np.arange(len(classes)) % 5 > 0
    found = table.measure_whole(system, ok)
    embeddings = system.embeddings[rows][ok]
    for rate in 0.1, 0.01, 0.001:
        told = found.pop(f"pairs/fnmr@{rate:g}")
        assert told == calibration.false_non_match_rate(embeddings, classes[ok], rate)
    num = len(np.unique(classes[ok]))
    assert found.pop("clustering/num_clusters") == num
    assert found.keys() == {"clustering/nmi", "clustering/ami"}
    everyone = table.measure_whole(system, np.ones(len(classes), bool))
    assert everyone["clustering/nmi"] != found["clustering/nmi"]


def test_ratings_are_simulated_where_nobody_rated(table):
    assert table.ratings.startswith("train: ")
    assert table.ratings.endswith("simulated from names and categories")
    assert not any(name.startswith("rated/") for name in table.test.evaluators)
    train = table.rows["train"]
    own = (
        (table.rated_triplets >= train.start) & (table.rated_triplets < train.stop)
    ).all(axis=1)
    assert f"train: {own.sum():,}," in table.ratings


@pytest.mark.slow
@pytest.mark.parametrize("has_train", [True, False])
@pytest.mark.parametrize("one_file", [True, False])
def test_what_people_rated_is_learned_from_and_measured(
    table, config, one_file, has_train, tmp_path
):
    rows, rng = table.rows, np.random.default_rng(0)
    draw = lambda part: np.array(
        [rng.choice(np.arange(part.start, part.stop), 3, False) for _ in range(9)]
    )
    drawn = {"test": draw(rows["test"])}
    if has_train:
        drawn["train"] = draw(rows["train"])
    files = {"all": np.concatenate([*drawn.values()])} if one_file else drawn
    for name, triplets in files.items():
        path = tmp_path / f"{name}.csv"
        rated_triplets.write_rated_triplets(path, triplets, table.splits)
    config = config.copy_and_resolve_references()
    name = "all" if one_file else "{split}"
    config.evaluation.evaluators.rated_triplets = dict(
        file=str(tmp_path / f"{name}.csv")
    )
    found = dataset.create_table(config, tmp_path / "runs")
    assert "rated" in found.test.evaluators
    assert "test: 9 of " in found.ratings
    measured = found.measure(
        random_system(found, 3), np.ones(len(found.splits["test"]))
    )
    assert measured["rated/num_triplets"].value == 9
    if has_train:
        learned = found.rated_triplets[
            np.isin(found.rated_triplets, drawn["train"]).all(axis=1)
        ]
        np.testing.assert_array_equal(learned, drawn["train"])
        assert "simulated" not in found.ratings
        assert split_of(found, learned) == {"train"}
        assert len(found.rated_triplets) == 18
    else:
        assert "simulated from names" in found.ratings
        np.testing.assert_array_equal(found.rated_triplets, table.rated_triplets)
