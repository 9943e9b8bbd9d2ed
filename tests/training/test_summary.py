"""The text of a training run: its start, its validations, its end and its verdict."""

import json
import re
import subprocess
import sys

from helpers import exported
import pytest

from deeprank_jax.configs import base
from deeprank_jax.training import summary

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

VERDICT

Results: RUN/results.json
Report:  RUN/report/index.html

Next:
  deeprank export --workdir=RUN --out=models/small
  deeprank index PHOTOS --model=models/small --out=small.index
  deeprank search query.jpg --index=small.index --out=found.html
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
    lines = printed[0].splitlines()
    assert re.fullmatch(
        r"(As good as|(Not surely )?[Bb]etter than|Worse than) the untrained network: "
        r"retrieval/recall@1 on test .*\.",
        lines[6],
    )
    lines[6] = "VERDICT"
    assert lines == STDOUT.splitlines()


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


def results_of(**values):
    return {"test": {"retrieval": {"map@r": values}}}


@pytest.mark.parametrize(
    ("ends", "sentence"),
    [
        (
            [0.05, 0.02, 0.08],
            "Better than the untrained network: retrieval/map@r on test differs by "
            "+0.050 [+0.020, +0.080] (95 % interval).",
        ),
        (
            [0.01, -0.02, 0.04],
            "Not surely better than the untrained network: retrieval/map@r on test "
            "differs by +0.010 [-0.020, +0.040] (95 % interval).",
        ),
        (
            [-0.05, -0.08, -0.02],
            "Worse than the untrained network: retrieval/map@r on test differs by "
            "-0.050 [-0.080, -0.020] (95 % interval).",
        ),
        (
            [0.0, 0.0, 0.0],
            "As good as the untrained network: retrieval/map@r on test is the same.",
        ),
        (
            None,
            "Compared with the untrained network: retrieval/map@r on test differs by "
            "+0.200, without an interval.",
        ),
    ],
)
def test_the_verdict_has_its_interval(ends, sentence):
    results = results_of(model=0.5, untrained=0.3, pixels=0.2)
    systems = {} if ends is None else {"untrained": {"model_better_by": ends}}
    intervals = {"test": {"retrieval": {"map@r": systems}}}
    assert summary.describe_verdict(results, intervals, base.get_config()) == sentence


def test_the_verdict_says_if_plain_pixels_are_better():
    results = results_of(model=0.5, untrained=0.3, pixels=0.9)
    systems = {
        "untrained": {"model_better_by": [0.2, 0.1, 0.3]},
        "pixels": {"model_better_by": [-0.4, -0.5, -0.3]},
    }
    intervals = {"test": {"retrieval": {"map@r": systems}}}
    config = base.get_config()
    config.model.weights = "package"
    sentence = summary.describe_verdict(results, intervals, config)
    assert sentence.startswith("Better than the network before training: ")
    assert sentence.endswith("; plain pixels are better, with 0.900.")
