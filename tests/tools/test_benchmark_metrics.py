"""`tools.benchmark metrics` measures what it says, with small sizes."""

import sys

import numpy as np
import pytest

from tools.benchmark import metrics, metrics_worker


def test_every_number_is_measured(monkeypatch, capsys):
    monkeypatch.setattr(metrics, "_ROWS", 350)
    monkeypatch.setattr(metrics, "_GALLERY", 3000)
    ask = metrics.ask
    asked = []

    def fake(python, side, num_rows):
        """Theirs is not installed here: takes half of our time, and a MiB."""
        asked.append(side)
        if side != "theirs":
            return ask(python, side, num_rows)
        values = dict.fromkeys(metrics_worker.NAMES, 0.5)
        return {"seconds": 0.5, "extra_mib": 1.0, "values": values}

    monkeypatch.setattr(metrics, "ask", fake)
    values = metrics.measure("another")
    assert asked == ["ours", "theirs", "exact"]
    assert values["metrics_time_ratio"] == values["metrics_seconds"] / 0.5
    assert values["metrics_seconds_torch"] == 0.5
    assert values["metrics_extra_mib_torch"] == 1.0
    assert 0 < values["metrics_seconds"] < 60
    assert 1 < values["metrics_extra_mib"] < 1000  # What XLA compiles.
    rates = values["exact_search_gflops"], values["exact_search_peak_gflops"]
    share = values["exact_search_peak_share"]
    assert 0 < share < 2
    assert share == pytest.approx(rates[0] / rates[1])
    assert 0 < values["exact_search_extra_mib"] < 1000
    assert 0 < values["exact_search_seconds"] < 60
    assert "recall@1" in capsys.readouterr().out


def test_a_side_that_fails_says_what_to_install():
    with pytest.raises(RuntimeError, match="--torch_python=PATH"):
        metrics.ask(sys.executable, "theirs", 7)


def test_rows_are_as_far_apart_as_told():
    rows, classes = metrics_worker.create_split(700)
    assert rows.shape == (700, 128)
    np.testing.assert_array_equal(np.bincount(classes), [7] * 100)
    squares = np.square(rows[:, None] - rows[None]).sum(axis=2)
    same = classes[:, None] == classes[None]
    np.fill_diagonal(squares, np.nan)
    assert np.nanmean(squares[same]) == pytest.approx(256, rel=0.05)
    assert np.nanmean(squares[~same]) == pytest.approx(512, rel=0.05)
