"""The text of a training run: its start, its validations, its end and its verdict."""

import html
import json
import pathlib
import re
import subprocess
import sys
import textwrap

from helpers import exported
from helpers.printed import without_times
import pytest

from deeprank_jax import config as config_lib
from deeprank_jax.configs import base
from deeprank_jax.evaluation.best_metric import describe_metrics
from deeprank_jax.report import metric_tables
from deeprank_jax.report.verdict import create_verdict
from deeprank_jax.training import summary, workdir

STDERR = """\
Folder of the run: RUN
Warning: folder: 1 class is too few for validation; (...)
Data: train 30 images of 6 classes, validation 6 of 4, test 36 of 6.
Network: convnet, 7,884 parameters, images of 16 x 16 pixels.
Devices: 1 CPU.
Step 4 of 8: retrieval/recall@1 on validation is #####, the best so far. Saved.
Step 8 of 8: retrieval/recall@1 on validation is #####(...). Saved.
Warning: validation: the metrics rest on only 4 queries (...)
Warning: test: the metrics rest on only 36 queries (...)
Writing the report.
"""
STDOUT = """\
test, 36 queries    model  untrained  16x16 pixels
recall@1            #####      #####         #####
map@r               #####      #####         #####
precision           #####      #####         #####
precision_in_class  #####      #####         #####

No verdict: the numbers rest on too few classes.
The test split has queries of 6 classes. With fewer than 10, an interval is too narrow \
to be believed, so none is shown.

Results: RUN/results.json
Report:  RUN/report/index.html

Next:
  deeprank export --workdir=RUN --out=models/small
  deeprank index PHOTOS --model=models/small --out=small.index
  deeprank search query.jpg --index=small.index --out=found.html
  deeprank compare-runs RUN runs/OTHER
"""


@pytest.fixture
def printed(trained, photos):
    """Returns the run's stdout and stderr, without what differs between machines."""
    texts = []
    for name in ("stdout.txt", "stderr.txt"):
        text = trained.with_name(name).read_text()
        text = text.replace(str(trained), "RUN").replace(str(photos), "PHOTOS")
        text = without_times(text)
        text = re.sub(r"(only \d+ queries |validation; ).*", r"\1(...)", text)
        # Another processor may have another best step.
        best = (
            r"(8 of 8: .* is [\d.]+)(, the best so far|; the best is still .*)\. Saved"
        )
        text = re.sub(best, r"\1(...). Saved", text)
        texts.append(re.sub(r"\b\d\.\d{3}\b", "#####", text))
    return texts


def test_a_run_says_what_it_does(printed):
    assert printed[1] == STDERR


def test_a_run_ends_with_its_metrics_a_verdict_and_the_next_commands(printed):
    assert printed[0] == STDOUT


def test_the_verdict_is_that_of_the_report(trained):
    text, note = workdir.Workdir(trained).verdict.read_text().splitlines()
    assert text == "No verdict: the numbers rest on too few classes."
    page = (trained / "report" / "index.html").read_text()
    assert text in page
    assert note in html.unescape(page)


def test_the_end_of_a_run_has_the_rows_and_systems_of_the_report(tmp_path):
    """Also those of trained weights to start from, and of rated triplets."""
    systems = dict(model=0.9, untrained=0.5, frozen=0.7, pixels=0.25)
    results = {
        "validation": {},
        "test": {
            "retrieval": {"recall@1": systems, "mrr": systems},
            "rated": {"precision": systems},
        },
    }
    files = workdir.Workdir(tmp_path)
    files.config.write_text(json.dumps(config_lib.saved_values(base.get_config())))
    files.results.write_text(json.dumps(results))
    files.report.mkdir()
    files.verdict.write_text("Better.\n\n")
    table = summary.describe_end(tmp_path).split("\n\n")[0]
    assert [line.split() for line in table.splitlines()] == [
        ["test", "model", "before", "training", "frozen", "16x16", "pixels"],
        ["recall@1", "0.900", "0.500", "0.700", "0.250"],
        ["rated", "precision", "0.900", "0.500", "0.700", "0.250"],
    ]
    rows = metric_tables.create_head_table(results, {}, {})["rows"]
    assert [row["name"] for row in rows] == ["recall@1", "rated precision"]


def test_the_quick_start_shows_the_end_of_a_run(tmp_path, monkeypatch):
    """The run of docs/quick_start.md, from its numbers."""
    columns = ("model", "untrained", "pixels")
    value = lambda *numbers: dict(zip(columns, numbers, strict=True))
    precision = value(1.0, 0.96, 1.0)
    retrieval = {
        "recall@1": value(59 / 60, 58 / 60, 59 / 60),
        "map@r": value(0.881, 0.78, 0.95),
        "num_queries": value(60.0, 60.0, 60.0),
    }
    triplets = {"precision": precision, "precision_in_class": precision}
    results = {"test": {"retrieval": retrieval, "triplets": triplets}}
    differences = {"untrained": (1, -2, 4), "pixels": (0, -3, 3)}
    ends = {
        system: {"model_better_by": [x / 60 for x in difference]}
        for system, difference in differences.items()
    }
    config = base.get_config()
    config.data.dir = "photos"
    verdict = create_verdict(
        results,
        {"test": {"retrieval": {"recall@1": ends}}},
        {"test": 12},
        describe_metrics(config.evaluation.evaluators.to_dict()),
    )
    monkeypatch.chdir(tmp_path)
    files = workdir.Workdir(pathlib.Path("runs/photos"))
    files.report.mkdir(parents=True)
    files.config.write_text(json.dumps(config_lib.saved_values(config)))
    files.results.write_text(json.dumps(results))
    files.verdict.write_text(f"{verdict.text}\n{verdict.note}\n")
    page = (exported.ROOT / "docs" / "quick_start.md").read_text("utf-8")
    assert textwrap.indent(summary.describe_end(files.path), " " * 4) in page


def test_a_finished_run_prints_its_end_again_and_nothing_else_if_quiet(trained):
    """In a few seconds, and without any message of another package."""
    command = json.loads(trained.with_name("command.json").read_text())
    before = (trained / "results.json").stat().st_mtime_ns
    done = subprocess.run(
        [sys.executable, "-m", "deeprank_jax.main", *command, "-q"],
        cwd=exported.ROOT, capture_output=True, check=True, timeout=300, text=True,
    )  # fmt: skip
    (warning,) = done.stderr.splitlines()
    assert "1 class is too few for validation" in warning
    assert done.stdout == trained.with_name("stdout.txt").read_text()
    assert (trained / "results.json").stat().st_mtime_ns == before
