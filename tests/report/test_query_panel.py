import dataclasses
import re
import tracemalloc

import cv2
from helpers.report_inputs import create_records
import numpy as np
import pytest

from deeprank_jax.evaluation.rankings import rank_records
from deeprank_jax.relevance import Hierarchy
from deeprank_jax.report import curves, embedding_map, query_panel
from deeprank_jax.report import thumbnails as thumbnails_lib
from deeprank_jax.search import exact

RELEVANCE = Hierarchy((0.001, 0.02, 1.0))
LEVELS = ("category", "subcategory", "shape")


@pytest.fixture
def ranked():
    records = create_records()
    embeddings = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    embeddings += records.labels[:, 2:]  # Neither perfect nor hopeless.
    return records, embeddings, rank_records(records.labels[:, -1], embeddings)


def test_neighbours_and_precision_are_their_definition(ranked):
    records, embeddings, ranking = ranked
    for i in range(60):
        far = ((embeddings[i] - embeddings) ** 2).sum(axis=1)
        order = [j for j in np.argsort(far, kind="stable") if j != i]
        np.testing.assert_array_equal(ranking.neighbors[i], order[:8])
        hits = records.labels[order[:3], 2] == records.labels[i, 2]
        precision = sum(hits[: r + 1].mean() for r in range(3) if hits[r]) / 3
        assert ranking.average_precision[i] == pytest.approx(precision)
    assert 0.1 < ranking.average_precision.mean() < 0.9


def test_masked_records_are_not_shown(ranked):
    records, embeddings, _ = ranked
    where = np.random.default_rng(1).random(60) < 0.5
    embeddings[~where] = np.nan
    ranking = rank_records(records.labels[:, -1], embeddings, where)
    assert where[ranking.neighbors].all()
    np.testing.assert_array_equal(ranking.queries, np.flatnonzero(where))
    labels = records.labels[where, 2]
    alone = (labels[:, None] == labels[None]).sum(axis=1) == 1
    assert alone.any()
    np.testing.assert_array_equal(np.isnan(ranking.average_precision), alone)
    chosen = query_panel.choose_queries(records, ranking, 60)
    assert not alone[chosen].any()


def test_blocks_change_no_ranking(ranked, monkeypatch):
    records, embeddings, _ = ranked
    records.labels[:9, 2] = [0, 1, 1, 2, 2, 2, 2, 3, 3]  # Of many sizes.
    whole = rank_records(records.labels[:, -1], embeddings)
    monkeypatch.setattr(exact, "_MAX_QUERIES", 4)
    parts = rank_records(records.labels[:, -1], embeddings)
    for field in dataclasses.fields(whole):
        np.testing.assert_array_equal(
            getattr(parts, field.name), getattr(whole, field.name)
        )


@pytest.mark.slow
def test_memory_does_not_grow_with_the_largest_class(monkeypatch):
    """One class of 1,500: a value for each pair is 2.2 million."""
    monkeypatch.setattr(exact, "_BLOCK_VALUES", 2**16)
    records = create_records(num_classes=1, per_class=1500)
    embeddings = np.random.default_rng(0).normal(size=(1500, 2))
    whole = rank_records(records.labels[:, -1], embeddings)
    tracemalloc.start()
    rank_records(records.labels[:, -1], embeddings)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert whole.neighbors.shape == (1500, 8)
    assert peak < 2**22


def test_queries_are_spread_over_the_classes(ranked):
    records, _, ranking = ranked
    choices = set()
    for seed in range(20):
        chosen = query_panel.choose_queries(records, ranking, 9, seed=seed)
        labels = records.labels[ranking.queries[chosen]]
        assert len(np.unique(labels[:, 2])) == 9
        np.testing.assert_array_equal(np.bincount(labels[:, 0]), [3, 3, 3])
        choices.add(tuple(chosen))
    assert len(choices) == 20
    assert len(query_panel.choose_queries(records, ranking, 1000)) == 60


def test_worst_queries_come_worst_first_one_of_each_class(ranked):
    records, _, ranking = ranked
    worst = query_panel.worst_queries(records, ranking, 10)
    precision = ranking.average_precision[worst]
    assert precision[0] == ranking.average_precision.min()
    assert np.all(np.diff(precision) >= 0)
    assert len(np.unique(records.labels[ranking.queries[worst], 2])) == 10
    equal = np.diff(precision) == 0
    assert equal.any()
    assert np.all(np.diff(ranking.distances[worst, 0])[equal] >= 0)


def test_grades_are_named_by_level_and_survive_float32(ranked):
    records, _, ranking = ranked
    rows = query_panel.create_rows(records, RELEVANCE, ranking, np.arange(60))
    grades = query_panel.create_grades(
        *query_panel.pairs_of_rows(records, rows), LEVELS
    )
    assert grades.names == (
        "another category",
        "same category",
        "same subcategory",
        "same shape",
    )
    values = np.array([0.0, 0.001, 0.02, 1.0])
    np.testing.assert_array_equal(grades.of(values), range(4))
    np.testing.assert_array_equal(grades.of(values.astype(np.float32)), range(4))
    assert [thumbnails_lib.pips(g, grades) for g in (0, 3)] == ["○○○", "●●●"]
    slots = [thumbnails_lib.frame_slot(g, grades) for g in range(4)]
    assert len(set(slots)) == 4


def test_many_relevances_are_graded_by_quarters():
    relevance = np.arange(101) / 100
    grades = query_panel.create_grades(relevance, np.zeros(101, int), LEVELS)
    np.testing.assert_array_equal(
        np.bincount(grades.of(relevance)), [1, 25, 25, 25, 25]
    )
    assert grades.names[1] == "relevance 0.01 to 0.258"


def test_grades_of_nothing_and_of_one_class():
    nothing = np.zeros(0)
    assert query_panel.create_grades(nothing, nothing.astype(int), LEVELS).edges == ()
    same = query_panel.create_grades(np.array([1.0, 0.0]), np.array([3, 2]), LEVELS)
    assert same.names == ("another shape", "same shape")
    # A relevance that the labels do not decide.
    same = query_panel.create_grades(np.array([1.0, 0.0]), np.array([3, 3]), LEVELS)
    assert same.names == ("not relevant", "same shape")


def test_the_picture_of_a_panel_shows_every_image(ranked, tmp_path):
    records, _, ranking = ranked
    rows = query_panel.create_rows(records, RELEVANCE, ranking, np.array([0, 20, 40]))
    grades = query_panel.create_grades(
        *query_panel.pairs_of_rows(records, rows), LEVELS
    )
    # Each record has a colour of its own.
    colors = np.stack([np.arange(60) * 4, 255 - np.arange(60) * 4, np.full(60, 77)], 1)
    thumbnails = lambda i: np.tile(
        colors[i, None, None].astype(np.uint8), (1, 30, 30, 1)
    )
    for name in "one.png", "two.png":
        thumbnails_lib.write_panel(tmp_path / name, rows, grades, thumbnails)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    picture = cv2.imread(str(tmp_path / "one.png"))[..., ::-1]
    assert picture.shape[1] == 1200
    seen = set(map(tuple, picture.reshape(-1, 3).tolist()))
    for row in rows:
        for index in (row.query, *row.neighbors):
            assert tuple(colors[index].tolist()) in seen


def test_the_map_shows_each_record_whole_and_where_it_says():
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(4, 6)) * 20
    embeddings = (centers[np.arange(80) % 4] + rng.normal(size=(80, 6))).astype("f4")
    colors = np.stack([np.arange(80) * 3, 255 - np.arange(80) * 3, np.full(80, 9)], 1)
    thumbnails = lambda i: np.tile(
        colors[i, None, None].astype(np.uint8), (1, 20, 20, 1)
    )
    indices = np.arange(5, 80)
    drawn = embedding_map.create_map(embeddings, indices, thumbnails)
    assert len(drawn.indices) > 60
    assert set(drawn.indices) <= set(indices)
    size = round(drawn.size * 1600)
    for index, (x, y) in zip(drawn.indices, drawn.corners * 1600, strict=True):
        x, y = round(x), round(y)
        tile = drawn.image[y : y + size, x : x + size]
        np.testing.assert_array_equal(
            tile[..., :3], np.broadcast_to(colors[index], tile[..., :3].shape)
        )
    # Clusters stay together.
    place = drawn.corners
    gaps = np.linalg.norm(place[:, None] - place[None], axis=2)
    same = drawn.indices[:, None] % 4 == drawn.indices[None] % 4
    assert gaps[same].mean() < 0.5 * gaps[~same].mean()


def test_curves_group_variants_and_leave_out_counts():
    metrics = [
        {"step": step, "train/loss": 1.0, "train/positives/shape": 0.1, "time": 1.0}
        | {"train/positives/category": 0.9, "eval/r/recall@1": 0.5, "wall": None}
        | {"eval/r/recall@10": 0.7, "eval/r/num_queries": 7.0, "eval/t/p": 0.5}
        | {"eval/t/p_in_class": 0.4, "eval/t/p_out_of_class": 0.6}
        for step in range(1000)
    ]
    charts = {chart.title: chart for chart in curves.create_charts(metrics)}
    assert list(charts) == [
        "train/loss",
        "eval/r/recall",
        "eval/t/p",
        "train/positives",
    ]
    assert charts["eval/r/recall"].names == ("eval/r/recall@1", "eval/r/recall@10")
    assert len(charts["eval/t/p"].names) == 3
    ids = [i for c in charts.values() for i in re.findall(r' id="([^"]+)"', c.svg)]
    assert len(ids) == len(set(ids))
    assert curves.create_charts([]) == []


def test_long_curves_are_thinned_by_means():
    points = np.stack([np.arange(4000.0), np.arange(4000.0) * 2], axis=1)
    thin = curves._thin(points)
    assert len(thin) == 400
    np.testing.assert_allclose(thin.mean(axis=0), points.mean(axis=0))
