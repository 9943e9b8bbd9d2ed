"""The demo as it is shipped, against what it promises; too long for every change."""

import json
import pathlib
import resource
import subprocess
import sys

import pytest

from deeprank_jax.training import metrics_writer

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_the_demo_learns_and_keeps_its_promises(tmp_path):
    subprocess.run(
        [
            sys.executable,
            "-m",
            "deeprank_jax.main",
            f"--workdir={tmp_path}",
            f"--config.data.dir={tmp_path / 'data'}",
        ],
        cwd=ROOT,
        check=True,
    )
    peak_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert peak_kib <= 4 * 2**20
    test = json.loads((tmp_path / "results.json").read_text())["test"]
    recall = test["retrieval"]["recall@1"]
    assert recall["model"] >= 0.72
    assert recall["model"] >= recall["pixels"] + 0.25
    assert recall["model"] >= recall["untrained"] + 0.25
    assert test["retrieval"]["map@r"]["model"] >= 0.48
    assert test["triplets"]["precision"]["model"] >= 0.885
    assert test["triplets"]["precision_in_class"]["model"] >= 0.885
    stalls = [
        entry["train/stall_share"]
        for entry in metrics_writer.read_metrics(tmp_path)
        if "train/stall_share" in entry
    ]
    assert sum(stalls) / len(stalls) <= 0.05
    assert (tmp_path / "report" / "index.html").stat().st_size <= 10 * 2**20
