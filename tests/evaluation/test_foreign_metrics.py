"""Our numbers are those of pytorch-metric-learning and rax, where both define them."""

import json
import os
import pathlib
import subprocess

import numpy as np
import pytest

from deeprank_jax.evaluation import HierarchicalAP, Retrieval
from deeprank_jax.relevance import Hierarchy, SameClass

GAINS = Hierarchy((0.1, 0.4, 1.0))
SCRIPT = pathlib.Path(__file__).with_name("foreign_metrics.py")
PYTHON = os.environ.get("TORCH_PYTHON")


@pytest.mark.full  # Needs an environment of its own.
@pytest.mark.skipif(
    not PYTHON, reason="TORCH_PYTHON names no Python with requirements-bench.txt"
)
def test_other_packages_find_the_same(tmp_path):
    """Some classes have one record, and some queries' first comes late."""
    rng = np.random.default_rng(0)
    classes = np.append(np.repeat(np.arange(20), 5), np.arange(20, 30))
    classes = np.append(classes, [30] * 8)
    labels = np.stack([classes // 8, classes // 3, classes], axis=1)
    rows = rng.normal(size=(31, 4))[classes] + rng.normal(size=(len(classes), 4))
    rows = rows.astype(np.float32)
    gains = np.asarray(GAINS.pairwise(labels[:, None], labels[None]))
    path = tmp_path / "embeddings.npz"
    np.savez(path, embeddings=rows, classes=classes, gains=gains)
    command = [PYTHON, str(SCRIPT), str(path)]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(out.stdout.splitlines()[-1])
    measured = Retrieval(labels, GAINS).measure(rows)
    measured["h_ap"] = HierarchicalAP(labels, SameClass()).measure(rows)["h_ap"]
    ours = {name: scores.value for name, scores in measured.items()}
    assert ours["num_queries"] == 108
    same = {
        "precision_at_1": "recall@1",
        "mean_average_precision_at_r": "map@r",
        "r_precision": "r_precision",
        "mean_reciprocal_rank": "mrr",
        "mean_average_precision": "h_ap",
    }
    expected = {own: found["all"][name] for name, own in same.items()}
    assert {name: ours[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    near = found["max_bin_count"]
    assert near["mean_average_precision_at_r"] == pytest.approx(ours["map@r"])
    assert near["mean_reciprocal_rank"] < ours["mrr"]  # Theirs ends at rank R.
    for name, row in found["rax"].items():
        counts = measured[name].counts
        assert 0 < np.ptp(np.array(row)[counts])
        np.testing.assert_allclose(
            measured[name].values[counts], np.array(row)[counts], atol=1e-5
        )
