"""Groups of images, against definitions by hand."""

import itertools

import numpy as np
import pytest

from deeprank_jax.errors import DataError
from deeprank_jax.search import grouping


def create_clumps(num_clumps=6, size=4, noise=0.01, seed=0):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(num_clumps, 5))
    which = rng.permutation(np.repeat(np.arange(num_clumps), size))
    return centers[which] + noise * rng.normal(size=(len(which), 5)), which


def as_sets(groups):
    return {frozenset(group.tolist()) for group in groups}


def test_duplicates_are_connected_components(monkeypatch):
    monkeypatch.setattr(grouping, "_BLOCK_PAIRS", 7 * 40)  # So that pairs cross blocks.
    monkeypatch.setattr(grouping, "_PAIRS_AT_ONCE", 3)
    rng = np.random.default_rng(0)
    rows = rng.uniform(size=(40, 2)).astype(np.float32)
    near = 0.01
    groups = {i: {i} for i in range(len(rows))}
    for i, j in itertools.combinations(range(len(rows)), 2):
        if np.sum((rows[i] - rows[j]) ** 2) <= near:
            joined = groups[i] | groups[j]
            groups.update(dict.fromkeys(joined, joined))
    wanted = {frozenset(g) for g in groups.values() if len(g) > 1}
    found = grouping.find_duplicates(rows, near)
    assert len(wanted) > 3
    assert max(map(len, wanted)) > 2
    assert as_sets(found) == wanted
    assert [len(g) for g in found] == sorted(map(len, wanted), reverse=True)


def test_copies_have_to_be_near_by_pixels_too():
    rows = np.zeros((3, 2), np.float32)
    pixels = np.array([[0.0], [0.1], [5.0]], np.float32)
    assert as_sets(grouping.find_duplicates(rows, 0.0)) == {frozenset({0, 1, 2})}
    found = grouping.find_duplicates(rows, 0.0, pixels, 0.02)
    assert as_sets(found) == {frozenset({0, 1})}


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 1.0])
def test_copies_are_joined_as_by_comparing_all_pairs(monkeypatch, share):
    monkeypatch.setattr(grouping, "_BLOCK_PAIRS", 7 * 60)
    monkeypatch.setattr(grouping, "_PAIRS_AT_ONCE", 5)
    rng = np.random.default_rng(3)
    rows = rng.integers(0, 4, (60, 2)).astype(np.float32)
    verdicts = np.triu(rng.uniform(size=(60, 60)) < share)
    groups = {i: {i} for i in range(60)}
    for i, j in itertools.combinations(range(60), 2):
        if verdicts[i, j] and (rows[i] == rows[j]).all():
            joined = groups[i] | groups[j]
            groups.update(dict.fromkeys(joined, joined))
    compared = []

    def is_copy(one, other):
        compared.append((one, other))
        return verdicts[one, other]

    found = grouping.find_duplicates(rows, 0.5, is_copy=is_copy)
    assert as_sets(found) == {frozenset(g) for g in groups.values() if len(g) > 1}
    assert len(set(compared)) == len(compared)


@pytest.mark.parametrize("block_pairs", [2**23, 10_000])
def test_equal_images_are_compared_once_each(monkeypatch, block_pairs):
    monkeypatch.setattr(grouping, "_BLOCK_PAIRS", block_pairs)
    compared = []

    def is_copy(one, other):
        compared.append((one, other))
        return True

    (group,) = grouping.find_duplicates(np.ones((500, 2)), 0.0, is_copy=is_copy)
    assert len(group) == 500
    assert len(compared) == 499


def test_the_nearest_images_are_compared_first():
    compared = []

    def is_copy(one, other):
        compared.append((one, other))
        return True

    rows = np.array([[0.0], [0.5], [0.6], [0.9]], np.float32)
    grouping.find_duplicates(rows, 1.0, is_copy=is_copy)
    assert compared == [(1, 2), (2, 3), (0, 1)]


def test_no_duplicates_is_no_group():
    assert grouping.find_duplicates(np.eye(4), 0.5) == []
    assert grouping.find_duplicates(np.zeros((0, 4)), 0.5) == []


def test_exact_copies_far_from_the_origin_are_found():
    rows = np.full((2, 64), 1e3, np.float32)
    assert len(grouping.find_duplicates(rows, 0.0)) == 1


@pytest.mark.parametrize("options", [{"max_distance": 0.5}, {"num": 6}])
def test_clusters_are_the_clumps(options):
    rows, which = create_clumps()
    wanted = {frozenset(np.flatnonzero(which == i).tolist()) for i in range(6)}
    assert as_sets(grouping.find_clusters(rows, **options)) == wanted


def test_many_images_are_clustered_by_k_means(monkeypatch):
    monkeypatch.setattr(grouping, "MAX_LINKED", 10)
    rows, which = create_clumps()
    wanted = {frozenset(np.flatnonzero(which == i).tolist()) for i in range(6)}
    assert as_sets(grouping.find_clusters(rows, num=6)) == wanted
    with pytest.raises(DataError, match="24 images are more than the 10"):
        grouping.find_clusters(rows, max_distance=0.5)


@pytest.mark.parametrize("num", [0, 1])
def test_few_images_are_a_cluster_each(num):
    found = grouping.find_clusters(np.zeros((num, 3)), max_distance=1.0)
    assert len(found) == num


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({}, "max_distance or num must be set"),
        ({"num": 2, "max_distance": 1.0}, "max_distance or num must be set"),
        ({"num": 0}, "choose from 1 to 4"),
        ({"num": 5}, "choose from 1 to 4"),
    ],
)
def test_what_cannot_be_is_refused(options, match):
    with pytest.raises(ValueError, match=match):
        grouping.find_clusters(np.eye(4), **options)
