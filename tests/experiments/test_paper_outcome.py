"""What comes out of the paper's table is what was measured, and says how."""

import json

from helpers import shrunk
import numpy as np
import pytest

from deeprank_jax.baselines.systems import System
from deeprank_jax.configs import base
from deeprank_jax.evaluation import bootstrap
from deeprank_jax.experiments.paper_table import dataset, measuring, outcome
from deeprank_jax.experiments.paper_table.rows import (
    FIRST,
    METRICS,
    RATED_METRICS,
    ROWS,
    further_row,
)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    directory = tmp_path_factory.mktemp("outcome")
    config = shrunk.shrink(base.get_config())
    photos = shrunk.write_images(directory / "photos", num_classes=24, num_images=10)
    config.data.dir = str(photos)
    return dataset.create_table(config, directory / "runs")


@pytest.fixture(scope="module")
def measured(table):
    """Systems of random numbers, in which classes lie the nearer the later the row."""
    labels = np.concatenate([x.labels[:, -1] for x in table.splits.values()])
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(labels.max() + 1, 6))
    ok = np.ones(len(labels), bool)
    ok[table.rows["test"].start + 3] = False
    systems = {}
    for i, name in enumerate(ROWS):
        rows = 0.1 * i * centers[labels] + rng.normal(size=(len(labels), 6))
        systems[name] = System(embeddings=rows.astype(np.float32), ok=ok)
    found = table.measurable(systems.values())
    return systems, {n: table.measure(x, found) for n, x in systems.items()}, found


def compare(table, measured, **options):
    options = {"sweeps": {}, "minutes": 1.25, "command": "a command"} | options
    return outcome.compare(table, *measured, **options)


def test_differences_are_paired_over_classes(table, measured):
    _, scores, _ = measured
    compared = compare(table, measured)
    assert [row.name for row in compared.rows] == [row.name for row in ROWS.values()]
    groups = table.splits["test"].labels[:, -1]
    systems = {FIRST: scores[FIRST], **scores}
    by_class = bootstrap.compare(systems, groups=groups)
    by_query = bootstrap.compare(systems)
    for name, row in zip(ROWS, compared.rows, strict=True):
        for metric in METRICS:
            own = by_class[name][metric].interval
            assert row.numbers[metric] == (own.value, own.low, own.high)
            if name != FIRST:
                less = by_class[name][metric].difference
                told = (less.value, less.low, less.high)
                assert row.difference[metric] == told
                assert less != by_query[name][metric].difference
    assert not compared.rows[-1].difference
    assert compared.first == compared.rows[-1].name == ROWS[FIRST].name


def test_rows_that_are_not_the_papers_come_last(table, measured):
    systems, scores, ok = measured
    name = "supcon"
    both = {**systems, name: systems[FIRST]}, {**scores, name: scores[FIRST]}
    further = {name: further_row("SupCon", "groups of four")}
    row = compare(table, (*both, ok), further=further).rows[-1]
    assert (row.name, row.about, row.published) == ("SupCon", "groups of four", {})
    assert row.difference["retrieval/map@r"] == (0.0, 0.0, 0.0)


def test_it_says_what_was_measured_and_what_was_left_out(table, measured):
    facts = compare(table, measured).facts
    size = len(table.splits["test"])
    assert facts["Left out"] == "1 images of test that a row could not embed"
    assert facts["Queries"].startswith(f"{size - 1:,} images of test")
    assert facts["Ratings"] == table.ratings
    assert facts["Hand-made part"].startswith("1.2 minutes")
    systems, scores, _ = measured
    everyone = systems, scores, np.ones(size, bool)
    assert "Left out" not in compare(table, everyone).facts


def test_names_with_dots_keep_them(table, measured, tmp_path):
    compared = compare(table, measured)
    for version in "1.1", "1.2":
        stem = tmp_path / "out" / f"table_v{version}"
        text = outcome.write(compared, stem, tmp_path)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    kinds = ("csv", "json", "md")
    assert names == [f"table_v1.{i}.{kind}" for i in (1, 2) for kind in kinds]
    assert "table_v1.2.json, .csv and .md" in text
    told = json.loads((tmp_path / "out" / "table_v1.1.json").read_text())
    assert told["command"] == "a command"


def test_ratings_come_first_where_there_are_some():
    assert outcome.metrics_of(dict.fromkeys(METRICS)) == METRICS
    found = outcome.metrics_of(dict.fromkeys(RATED_METRICS))
    assert [*found][:2] == ["rated/precision", "rated/score_at_30"]
    assert found.keys() > METRICS.keys()


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_that_is_not_there_is_told(name):
    others = [metric for metric in METRICS if metric != name]
    with pytest.raises(ValueError, match=f"^{name} cannot be measured: the test split"):
        outcome.metrics_of(dict.fromkeys(others))


def test_the_longest_call_is_kept(tmp_path):
    path = tmp_path / "hand_made.json"
    found = [measuring.longest(path, seconds) for seconds in (9.0, 2.0, 11.0, 3.0)]
    assert found == [9.0, 9.0, 11.0, 11.0]


@pytest.mark.parametrize("embeds_all", [True, False])
def test_all_are_measured_on_the_records_that_all_have(table, embeds_all):
    num = sum(map(len, table.splits.values()))
    rng = np.random.default_rng(0)
    rows, everyone = rng.normal(size=(num, 4)), np.ones(num, bool)
    some = everyone.copy()
    some[table.rows["test"].start + 5] = embeds_all
    found = {"a": System(embeddings=rows, ok=everyone)}
    trained = {"b": System(embeddings=rows, ok=some)}
    known = measuring.measure(table, found, table.measurable(found.values()))
    scores, ok = measuring.measure_all(table, found, trained, known)
    np.testing.assert_array_equal(ok, some[table.rows["test"]])
    assert scores.keys() == {"a", "b"}
    assert (scores["a"] is known["a"]) == embeds_all
    for metric, own in scores["a"].items():
        np.testing.assert_array_equal(own.values, scores["b"][metric].values)
