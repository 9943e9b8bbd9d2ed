"""`tools.benchmark collection` measures what it says, with a small collection."""

import numpy as np

from tools.benchmark import collection, search


def test_every_number_is_measured(monkeypatch):
    for name, value in {"_CLUSTERS": 40, "_QUERIES": 300}.items():
        monkeypatch.setattr(search, name, value)
    monkeypatch.setattr(collection, "_ROUNDS", 1)
    monkeypatch.setattr(collection, "_BLOCK", 2500)
    values = collection.measure(6000)
    assert all(np.isfinite(value) and value > 0 for value in values.values())
    assert values["rows"] == 6000
    assert values["graph_recall@10"] > 0.95
    # 128 numbers of four bytes, the id and the label.
    assert 512 < values["disk_bytes_per_row"] < 600
    assert values["graph_bytes_per_row"] > 512
