"""`tools.benchmark codes` measures what it says, on made-up embeddings."""

import numpy as np
import pytest

from tools.benchmark import codes


def test_every_encoder_is_measured(monkeypatch):
    monkeypatch.setattr(codes, "_BITS", (8, 64))
    monkeypatch.setattr(codes, "_RERANKED", 6)
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(30), 5)
    centers = rng.normal(size=(30, 32))
    draw = lambda: centers[labels] + rng.normal(size=(150, 32))
    test = draw()
    values = codes.measure_retrieval(draw(), test, labels)
    names = {"float", "signs_32", "hyperplanes_8", "hyperplanes_64", "itq_8"}
    names.add("learned_32")
    reranked = {
        f"{name}_{order}"
        for name in names - {"float"}
        for order in ("asymmetric", "rerank")
    }
    assert values.pop("float_bytes") == 128
    assert values.keys() == {
        f"{name}_{metric}"
        for name in names | reranked
        for metric in ("recall_at_1", "map_at_r")
    }
    gaps = np.linalg.norm(test[:, None] - test, axis=2)
    np.fill_diagonal(gaps, np.inf)
    expected = np.mean(labels[gaps.argmin(axis=1)] == labels)
    assert values["float_recall_at_1"] == pytest.approx(expected)
    for name in names - {"float"}:
        assert 0 < values[f"{name}_map_at_r"] < values["float_map_at_r"]
        recalls = [
            values[f"{name}{order}_recall_at_1"]
            for order in ("", "_asymmetric", "_rerank")
        ]
        assert recalls == sorted(recalls)
    assert values["hyperplanes_64_map_at_r"] > values["hyperplanes_8_map_at_r"]
    bits = test > 0
    distances = np.sum(bits[:, None] != bits, axis=2)
    np.fill_diagonal(distances, 32)
    expected = np.mean(labels[distances.argmin(axis=1)] == labels)
    assert values["learned_32_recall_at_1"] == pytest.approx(expected)


def test_the_speed_is_measured(monkeypatch):
    monkeypatch.setattr(codes, "_ROWS", 5000)
    assert codes.measure_speed()["hamming_64_speed_ratio"] > 0
