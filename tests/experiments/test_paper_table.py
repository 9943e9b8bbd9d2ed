"""The whole table on a small folder: every row, the files, the page; and again."""

import contextlib
import csv
import io
import json
import pathlib
import re

from helpers import shrunk
from helpers.browser import open_in_browser
from helpers.commands import forked_runs, run_command
import pytest

from deeprank_jax.cli.__main__ import main
from deeprank_jax.configs import paper_table_emoji
from deeprank_jax.experiments.paper_table.rows import FIRST, METRICS, ROWS

ROOT = pathlib.Path(__file__).parents[2]
PLAN = """
from deeprank_jax.configs import base, paper_table_emoji
from deeprank_jax.experiments.paper_table.rows import TRAINED
NETWORKS = {name: paper_table_emoji.NETWORKS[name] for name in TRAINED}
SWEEP = {
    f"{mode}_{share}": {"sampler.mode": mode, "sampler.out_of_class": share}
    for mode in ("importance", "uniform") for share in (0.0, 1.0)
}
SWEEP_CONFIG = "folder"
get_config = base.get_config
"""


def words(tmp_path, *flags):
    command = ["paper-table", f"--out={tmp_path / 'out'}"]
    command += [f"--config={tmp_path / 'plan.py'}", f"--workdir={tmp_path / 'runs'}"]
    return [*command, f"--config.data.dir={tmp_path / 'photos'}", *flags,
            *shrunk.flags()]  # fmt: skip


def run(tmp_path, *flags):
    return run_command(words(tmp_path, *flags), folder=ROOT)


@pytest.fixture
def folder(tmp_path):
    # In test are 12 classes or more; with fewer than 10 there would be no intervals.
    return fill(tmp_path, num_classes=56)


def fill(folder, num_classes=24):
    """Writes a plan and the images for it."""
    (folder / "plan.py").write_text(PLAN)
    shrunk.write_images(folder / "photos", num_classes=num_classes, num_images=5)
    return folder


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Returns the folder of a table without its sweep, and what was printed."""
    folder = fill(tmp_path_factory.mktemp("measured"))
    printed = io.StringIO()
    with forked_runs(), contextlib.redirect_stdout(printed):
        main(words(folder, "--nosweep"))
    return folder, printed.getvalue()


def test_every_row_is_measured_and_written(measured):
    folder, printed = measured
    table = json.loads((folder / "out" / "plan.json").read_text())
    names = [row.name for row in ROWS.values()]
    assert [row["name"] for row in table["rows"]] == names
    for row in table["rows"]:
        assert row["numbers"].keys() > {*METRICS, "hierarchical/h_ap"}
        assert bool(row["whole"]) != row["name"].startswith("OASIS")
        for metric, (value, low, high) in row["numbers"].items():
            # All draws may have the same value, but for its last bits.
            assert low - 1e-9 <= value <= high + 1e-9, (row["name"], metric)
        assert bool(row["difference"]) == (row["name"] != ROWS[FIRST].name)
        for metric, (value, low, high) in row["difference"].items():
            # All draws may have the same value, but for its last bits.
            assert low - 1e-9 <= value <= high + 1e-9, (row["name"], metric)
            ours, own = (x["numbers"][metric][0] for x in (table["rows"][-1], row))
            assert value == pytest.approx(ours - own)
    found = {row["numbers"]["retrieval/map@r"][0] for row in table["rows"]}
    assert len(found) > len(names) / 2
    assert table["command"].startswith("deeprank paper-table --config=")
    assert "Seen in training" in table["facts"]
    markdown = (folder / "out" / "plan.md").read_text()
    assert markdown in printed
    assert "Similarity precision, paper (other data) |" in markdown
    lines = (folder / "out" / "plan.csv").read_text().splitlines()
    rows = list(csv.DictReader(lines))
    whole_metrics = {row["metric"] for row in rows if not row["low"]}
    assert whole_metrics >= {"clustering/nmi", "clustering/ami", "pairs/fnmr@0.01"}
    assert {row["system"] for row in rows} == set(names)
    page = (folder / "runs" / "table.html").read_text(encoding="utf-8")
    found, console = open_in_browser(page, folder)
    assert not found["violations"] + found["errors"] + found["requests"] + console
    assert found["overflow"] <= 0


@pytest.mark.full  # All is measured again.
def test_runs_that_are_there_are_not_trained_again(measured):
    folder, _ = measured
    table = json.loads((folder / "out" / "plan.json").read_text())
    times = {p: p.stat().st_mtime_ns for p in (folder / "runs").glob("*/results.json")}
    assert len(times) == 4
    again = run(folder, "--nosweep")
    assert again.returncode == 0, again.stderr
    assert times == {p: p.stat().st_mtime_ns for p in times}
    found = json.loads((folder / "out" / "plan.json").read_text())
    assert found["rows"] == table["rows"]


@pytest.mark.full  # Four more runs.
def test_the_sweep_is_drawn(folder):
    done = run(folder, "--jobs=2")
    assert done.returncode == 0, done.stderr
    sweeps = json.loads((folder / "out" / "plan.json").read_text())["sweeps"]
    assert sweeps.keys() == set([*METRICS][:2])
    for lines in sweeps.values():
        assert lines.keys() == {"importance", "uniform"}
        assert [x for x, _ in lines["uniform"]] == [0.0, 1.0]
        for _, (value, low, high) in lines["uniform"]:
            assert low <= value <= high
    wide = [
        low < high for _, (_, low, high) in sweeps["triplets/score_at_30"]["uniform"]
    ]
    assert any(wide)
    assert "<svg" in (folder / "runs" / "table.html").read_text()


def test_a_plan_without_networks_is_refused_before_anything_is_done(folder):
    plan = folder / "plan.py"
    plan.write_text(re.sub("NETWORKS = .*", "NETWORKS = {}", PLAN))
    done = run(folder)
    assert done.returncode == 1
    assert "are none; the rows of the table are made of softmax, " in done.stderr
    assert not (folder / "runs").exists()


def test_a_folder_that_is_missing_is_told_in_a_line(folder):
    (folder / "photos").rename(folder / "elsewhere")
    done = run(folder)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "photos: there is no such folder; give a folder" in done.stderr


def test_the_plan_on_emoji_is_the_papers():
    assert paper_table_emoji.NETWORKS.keys() == {
        "softmax",
        "softmax_further",
        "single_scale",
        "deep_ranking",
        *paper_table_emoji.FURTHER_ROWS,
    }
    # Figure 6 has six shares, each with weighted and uniform sampling.
    assert len(paper_table_emoji.SWEEP) == 12
    assert paper_table_emoji.get_config().data.source.name == "emoji"
