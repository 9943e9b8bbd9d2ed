"""k-means by its definition, and NMI and AMI of its clusters."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
from sklearn import cluster, metrics

from deeprank_jax.evaluation import Clustering, clustering

ROOT = pathlib.Path(__file__).parents[2]


def create_split(seed=0, *, num_classes=12, per_class=9, noise=0.4, shift=0.0):
    rng = np.random.default_rng(seed)
    classes = np.repeat(np.arange(num_classes), per_class)
    centers = rng.normal(size=(num_classes, 5))
    rows = centers[classes] + noise * rng.normal(size=(len(classes), 5)) + shift
    order = rng.permutation(len(classes))
    return rows[order].astype(np.float32), classes[order]


def reference_lloyd(rows, first, num_iterations):
    """Every distance anew in each pass; fails where a cluster loses all its rows."""
    centers = rows[first].astype(np.float64)
    for _ in range(num_iterations + 1):
        squares = np.sum((rows[:, None] - centers[None]) ** 2, axis=2)
        found = squares.argmin(axis=1)
        assert len(np.unique(found)) == len(centers)
        means = [rows[found == k].mean(axis=0) for k in range(len(centers))]
        centers = np.array(means, np.float64)
    return found, squares.min(axis=1).sum()


@pytest.mark.parametrize("num_iterations", [1, 3, 20])
@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_lloyd_is_its_definition(shift, num_iterations, monkeypatch):
    monkeypatch.setattr(clustering, "_BLOCK", 32)  # Four blocks.
    rows, _ = create_split(shift=shift)
    first = np.random.default_rng(5).choice(len(rows), 12, replace=False)
    expected, inertia = reference_lloyd(rows - shift, first, num_iterations)
    start = reference_lloyd(rows - shift, first, 0)[0]
    assert 0 < np.count_nonzero(start != expected) < len(rows)
    found = clustering.kmeans(rows, 12, num_iterations=num_iterations, seed=5)
    np.testing.assert_array_equal(found, expected)
    lloyd = clustering._lloyd(rows - np.float32(shift), first, num_iterations)
    assert lloyd[1] == pytest.approx(inertia, rel=1e-4)


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_it_is_as_good_as_scikit_learns(seed):
    """From the same rows; theirs stops when no row changes, as ours does."""
    rows, _ = create_split(seed, per_class=40, noise=1.0)
    first = np.random.default_rng(2).choice(len(rows), 12, replace=False)
    theirs = cluster.KMeans(12, init=rows[first], n_init=1, tol=0.0).fit(rows)
    found = clustering.kmeans(rows, 12, num_iterations=100, seed=2)
    np.testing.assert_array_equal(found, theirs.labels_)


def test_nmi_and_ami_are_those_of_the_partition():
    rows, classes = create_split(2)
    labels = np.stack([classes // 3, classes + 100], axis=1)
    found = dict(Clustering(labels, seed=4).run(rows))
    clusters = clustering.kmeans(rows, 12, seed=4)
    assert found["nmi"] == metrics.normalized_mutual_info_score(classes, clusters)
    assert found["ami"] == metrics.adjusted_mutual_info_score(classes, clusters)
    assert 0.5 < found["ami"] < found["nmi"] < 1
    assert found["num_clusters"] == 12
    noise = np.random.default_rng(0).normal(size=rows.shape)
    assert abs(dict(Clustering(labels).run(noise))["ami"]) < 0.1


def test_of_several_starts_the_nearest_counts():
    rows, _ = create_split(0)
    rng = np.random.default_rng(0)
    inertias = [
        clustering._lloyd(rows, rng.choice(len(rows), 12, replace=False), 20)[1]
        for _ in range(5)
    ]
    assert np.argmin(inertias) not in (0, 4)
    found = clustering.kmeans(rows, 12, num_restarts=5)
    centers = np.array([rows[found == k].mean(axis=0) for k in range(12)])
    inertia = np.sum((rows - centers[found]) ** 2)
    assert inertia == pytest.approx(min(inertias), rel=1e-4)


def test_an_empty_cluster_gets_the_farthest_row():
    """Two equal rows begin: the second of their clusters has none."""
    rows = np.array([[0.0], [0.0], [1.0], [9.0]], np.float32)
    found, inertia = clustering._lloyd(rows, np.array([0, 1]), 20)
    np.testing.assert_array_equal(found, [0, 0, 0, 1])
    assert inertia == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        ([], (0.0, 0.0, 0.0)),
        ([3], (1.0, 1.0, 1.0)),
        ([3, 3, 3], (1.0, 1.0, 1.0)),
        ([3, 4, 5], (1.0, 1.0, 3.0)),
    ],
    ids=["none", "one_record", "one_class", "each_alone"],
)
def test_degenerate_splits_have_defined_numbers(classes, expected):
    labels = np.array(classes, int).reshape(-1, 1)
    found = Clustering(labels).run(np.eye(3)[: len(classes)])
    assert dict(found) == dict(
        zip(("nmi", "ami", "num_clusters"), expected, strict=True)
    )


def test_equal_rows_fall_into_one_cluster():
    found = Clustering(np.array([[0], [0], [1], [1]])).run(np.ones((4, 2)))
    assert dict(found) == {"nmi": 0.0, "ami": 0.0, "num_clusters": 2.0}


def test_a_masked_record_takes_part_in_nothing():
    rows, classes = create_split(6)
    where = np.random.default_rng(0).random(len(rows)) < 0.7
    subset = dict(Clustering(classes[where, None]).run(rows[where]))
    rows[~where] = np.nan
    assert dict(Clustering(classes[:, None]).run(rows, where)) == subset
    with pytest.raises(ValueError, match="not finite"):
        dict(Clustering(classes[:, None]).run(rows))


@pytest.mark.parametrize(
    ("num", "options", "message"),
    [
        (0, {}, "must be from 1 to 4"),
        (5, {}, "must be from 1 to 4"),
        (2, {"num_restarts": 0}, "num_restarts must be at least 1, got 0"),
        (2, {"num_iterations": 0}, "num_iterations must be at least 1, got 0"),
    ],
)
def test_bad_options_are_refused(num, options, message):
    with pytest.raises(ValueError, match=message):
        clustering.kmeans(np.eye(4), num, **options)


@pytest.mark.slow
def test_one_device_and_four_find_the_same():
    """These tests have four devices; a process of its own has one."""
    rows, _ = create_split(7, noise=1.0)
    code = (
        "import sys; sys.path.insert(0, 'tests/evaluation');"
        "import jax, test_clustering as t;"
        "assert jax.device_count() == 1;"
        "rows = t.create_split(7, noise=1.0)[0];"
        "print(*t.clustering.kmeans(rows, 12))"
    )
    command = [sys.executable, "-c", code]
    out = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    expected = [int(x) for x in out.stdout.split()]
    np.testing.assert_array_equal(clustering.kmeans(rows, 12), expected)
    assert len(set(expected)) == 12
