"""The text of a training run: its start, its validations, its end and its verdict."""

import html
import json
import re
import subprocess
import sys

from helpers import exported
import pytest

from deeprank_jax.training import workdir

STDERR = """\
Folder of the run: RUN
Warning: folder: 1 classes are too few for validation; (...)
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
test, 36 queries             model  untrained  16x16 pixels
retrieval/recall@1           #####      #####         #####
retrieval/map@r              #####      #####         #####
triplets/precision           #####      #####         #####
triplets/precision_in_class  #####      #####         #####

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
        text = re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", "", text, flags=re.M)
        # Lines that only a slow machine has.
        text = re.sub(r"^(.* \.\.\. [\d:]+|\w+: \d+ of \d+ .*)\n", "", text, flags=re.M)
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


def test_a_finished_run_prints_its_end_again_and_nothing_else_if_quiet(trained):
    """In a few seconds, and without any message of another package."""
    command = json.loads(trained.with_name("command.json").read_text())
    before = (trained / "results.json").stat().st_mtime_ns
    done = subprocess.run(
        [sys.executable, "-m", "deeprank_jax.main", *command, "-q"],
        cwd=exported.ROOT, capture_output=True, check=True, timeout=300, text=True,
    )  # fmt: skip
    (warning,) = done.stderr.splitlines()
    assert "1 classes are too few for validation" in warning
    assert done.stdout == trained.with_name("stdout.txt").read_text()
    assert (trained / "results.json").stat().st_mtime_ns == before
