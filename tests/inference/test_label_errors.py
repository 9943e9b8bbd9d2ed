"""Margins of label errors are cosines, whatever the length of an embedding."""

import numpy as np
import pytest

from deeprank_jax.data.records import Records
from deeprank_jax.inference import bulk, label_errors


def test_the_length_of_an_embedding_does_not_count(monkeypatch):
    degrees = np.array([0.0, 60.0, 20.0, 24.0])
    directions = np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], 1)
    rows = directions * np.array([1.0, 1.0, 9.0, 1.0])[:, None]
    labels = np.array([0, 0, 1, 1])
    records = Records(
        name="images",
        labels=labels[:, None],
        level_names=("label",),
        label_names=(("a", "b"),),
        read=lambda index: b"",
        describe=str,
    )
    embed = lambda model, records, progress: (rows.astype(np.float32), np.arange(4))
    monkeypatch.setattr(bulk, "embed_records", embed)
    first = label_errors.find_label_errors(None, records)[0]
    assert (first.path, first.nearest_path, first.same_path) == ("0", "2", "1")
    expected = np.cos(np.radians(20)) - np.cos(np.radians(60))
    assert first.margin == pytest.approx(expected, abs=1e-6)
