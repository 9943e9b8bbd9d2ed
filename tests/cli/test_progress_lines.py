"""Slow commands say in a log how far they are."""

import time

import pytest

from deeprank_jax import data, progress
from deeprank_jax.cli import __main__
from deeprank_jax.distributed import backend
from deeprank_jax.errors import DataError
from deeprank_jax.experiments import ablation, rejudge
from deeprank_jax.experiments.paper_table import run as paper_table

# Commands and the function that takes their time.
SLOW = {
    "ablation": (ablation, "run_ablation"),
    "rejudge": (rejudge, "rejudge"),
    "paper-table": (paper_table, "run_paper_table"),
    "prepare": (data, "create_records"),
    "golden-feature": (data, "create_records"),
}


def last_a_while(*args, **options):
    del args, options
    with progress.Bar(total=3, desc="slow", unit="run") as bar:
        bar.update()
        time.sleep(0.3)
    raise DataError("That is enough.")


@pytest.mark.parametrize("name", SLOW)
def test_a_slow_command_logs_lines(name, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(backend, "keep_compiled", lambda: None)
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.05)
    monkeypatch.setattr(*SLOW[name], last_a_while)
    words = [name, "--config=ablation_sampling"]
    if name not in ("prepare", "golden-feature"):
        words += [f"--workdir={tmp_path}"]
    if name == "golden-feature":
        words += [f"--simulate={tmp_path / 'ratings.csv'}"]
    with pytest.raises(SystemExit, match=r"That is enough\."):
        __main__.main(words)
    assert "slow: 1 of 3 runs, about 00:0" in capsys.readouterr().err
