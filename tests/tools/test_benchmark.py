"""The benchmark measures what it says, with small sizes."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tools.benchmark import __main__ as benchmark
from tools.benchmark import sampler as sampler_lib
from tools.benchmark import sampler_laws
from tools.benchmark.exact_laws import chi_square, enumerate_laws

NAMES = {
    "ingest_records_per_s",
    "hierarchy_triplets_per_s",
    "hierarchy_grouped_images_per_s",
    "embedding64_triplets_per_s",
    "law_min_p_value",
    "small_buffer_tv_corrected",
    "small_buffer_tv_uncorrected",
    "memory_ratio_1e7_over_1e4",
    "speed_ratio_1e7_over_1e4",
}


@pytest.fixture
def shrunk(monkeypatch):
    for module, values in {
        sampler_lib: {"_LARGE": 30_000, "_ROUNDS": 1, "_STEPS": 10},
        sampler_laws: {"_DRAWS": 200_000, "_NUM_RESERVOIRS": 20_000},
    }.items():
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)


def test_every_number_is_measured(shrunk):
    values = sampler_lib.measure()
    assert values.keys() == NAMES
    assert json.loads(json.dumps(values)) == values
    assert all(np.isfinite(value) and value > 0 for value in values.values())
    # What does not depend on the machine holds with small sizes, too.
    assert values["law_min_p_value"] > 1e-3
    assert values["small_buffer_tv_corrected"] < 0.03
    assert values["small_buffer_tv_uncorrected"] > 0.05
    assert values["memory_ratio_1e7_over_1e4"] < 1.2


@pytest.mark.parametrize(
    "module",
    ["benchmark", "benchmark.exact_search", "benchmark.metrics_worker"],
)
def test_every_module_that_can_be_run_has_help(module):
    shown = subprocess.run(
        [sys.executable, "-m", f"tools.{module}", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.startswith("usage: ")
    assert not shown.stderr


def test_every_benchmark_has_help_and_writes_its_numbers(tmp_path, monkeypatch, capsys):
    for name in benchmark.BENCHMARKS:
        with pytest.raises(SystemExit, match="0"):
            benchmark.main([name, "--help"])
        assert "--json FILE" in capsys.readouterr().out
    monkeypatch.setattr(sampler_lib, "measure", lambda: {"speed": 2.5})
    benchmark.main(["sampler", f"--json={tmp_path / 'x.json'}"])
    assert json.loads((tmp_path / "x.json").read_text()) == {"speed": 2.5}
    with pytest.raises(SystemExit, match="2"):
        benchmark.main(["speed"])


def test_pairs_have_the_totals_asked_for():
    totals = np.random.default_rng(0).lognormal(size=140)
    table = sampler_laws._pairs_with_totals(totals)
    np.testing.assert_allclose(table.sum(axis=1), totals, rtol=1e-9)
    np.testing.assert_allclose(table, table.T)
    assert (np.diagonal(table) == 0).all()


def test_records_lie_in_files(tmp_path: pathlib.Path):
    candidates = sampler_lib.create_files(tmp_path / "x", 1000)
    assert isinstance(candidates.totals, np.memmap)
    assert candidates.sizes.sum() == 1000


def test_an_enumerated_law_is_that_of_a_hand_made_case():
    """Three records of one category, one of another; relevances 1, 2 and 3."""
    table = np.zeros((4, 4))
    table[0, 1] = table[1, 0] = 1.0
    table[0, 2] = table[2, 0] = 2.0
    table[1, 2] = table[2, 1] = 3.0
    positives, inside, outside = enumerate_laws(
        np.arange(4)[:, None],
        np.array([0, 0, 0, 1]),
        sampler_laws.Pairs(table),
        cap=2.0,
        gap=1.0,
        out_of_class=0.25,
    )
    # Totals are 3, 4 and 5; of anchor 1 the positives weigh 1 and min(2, 3).
    assert positives[1, 2] == pytest.approx(4 / 12 * 2 / 3)
    assert positives[1, 0] == pytest.approx(4 / 12 * 1 / 3)
    # Positive 2 leaves record 0 as in-class negative; positive 0 leaves none.
    assert inside[1, 2, 0] == pytest.approx(positives[1, 2] * 0.75)
    assert outside[1, 2, 3] == pytest.approx(positives[1, 2] * 0.25)
    assert inside[1, 0].sum() == 0
    assert outside[1, 0, 3] == pytest.approx(positives[1, 0])


def test_chi_square_tells_laws_apart():
    rng = np.random.default_rng(0)
    law = np.array([[0.1, 0.2, 0.0], [0.3, 0.4, 0.0]])
    cell = rng.choice(6, 20_000, p=law.ravel())
    drawn = np.stack(np.divmod(cell, 3), axis=1)
    assert chi_square(drawn, law) > 1e-3
    assert chi_square(drawn, law + np.array([[0.02, 0.0, 0.0], [0.0] * 3])) < 1e-3
    drawn[0] = (1, 2)
    assert chi_square(drawn, law) == 0.0
