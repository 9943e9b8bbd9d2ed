"""`tools.benchmark search` measures what it says, with small sizes."""

import numpy as np
import pytest

from tools.benchmark import search

NAMES = {
    "exact_time_ratio",
    "exact_seconds",
    "exact_seconds_flat",
    "exact_seconds_flat_product",
    "exact_seconds_flat_product_alone",
    "hnsw_recall@10",
    "hnsw_queries_per_s_per_core",
    "hnsw_build_seconds",
}


@pytest.fixture
def shrunk(monkeypatch):
    small = {"_ROWS": 6000, "_CLUSTERS": 40, "_QUERIES": 50, "_ROUNDS": 1}
    for name, value in small.items():
        monkeypatch.setattr(search, name, value)


def test_every_number_is_measured(shrunk):
    values = search.measure()
    assert values.keys() == NAMES
    assert all(np.isfinite(value) and value > 0 for value in values.values())
    assert values["hnsw_recall@10"] > 0.95
    flat = [values[name] for name in NAMES if name.startswith("exact_seconds_")]
    assert values["exact_time_ratio"] == values["exact_seconds"] / min(flat)


def test_clusters_are_as_far_apart_as_told(shrunk):
    rows, queries = search.create_clusters(6000)
    assert rows.shape == (6000, 128)
    assert queries.shape == (50, 128)
    squares = np.sum(np.square(queries[:, None] - rows[None]), axis=2)
    near = squares < 130
    assert 0.5 / 40 < near.mean() < 1.5 / 40  # A row has its cluster around it.
    assert squares[near].mean() == pytest.approx(32, rel=0.15)
    assert squares[~near].mean() == pytest.approx(288, rel=0.05)
