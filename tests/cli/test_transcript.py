"""The whole output of commands is that in `transcript.txt`.

`WRITE_TRANSCRIPT=1 pytest tests/cli/test_transcript.py` writes the file anew.
"""

import os
import pathlib
import re
import shlex
import shutil

from helpers.commands import run_command
from helpers.printed import without_times
import pytest

from deeprank_jax.cli.commands import list_commands

TRANSCRIPT = pathlib.Path(__file__).with_name("transcript.txt")
# Commands that train, or need ratings; they have tests of their own.
ELSEWHERE = {
    "ablation", "golden-feature", "paper-table", "rejudge", "train", "train-similarity",
}  # fmt: skip
# Another processor, which rounds otherwise, may have other numbers and another order.
PLACEHOLDERS = (
    (r"-?\b\d+\.\d+(e[+-]?\d+)?\b", "#"),
    (r"(score_at_30 ).*", r"\1 ..."),
    (r"checkpoints/\d(, checkpoints/\d)*", "checkpoints/#"),
    (r"checkpoints_copy/\d", "checkpoints_copy/#"),
    (r"class \d\d  /HOME/photos/class \d\d/\d", "class #  /HOME/photos/class #/#"),
    (r"(by vote: ).*", r"\1..."),
    (r"^\d+ (of 72 images are nearer)", r"# \1"),
    (r"\b\d+,\d+ +\d+$", "#,#  #"),
    # Widths of columns.
    (r" {2,}", "  "),
    (r" +$", ""),
)


def read_commands():
    lines = TRANSCRIPT.read_text("utf-8").splitlines()
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


@pytest.fixture
def place(trained, exported, photos, tmp_path):
    """Returns a folder with photos, a run and a model."""
    shutil.copytree(photos, tmp_path / "photos")
    shutil.copytree(trained, tmp_path / "runs" / "small")
    shutil.copytree(trained, tmp_path / "runs" / "other")
    shutil.copytree(exported, tmp_path / "model")
    shutil.copy(sorted(photos.rglob("*.png"))[0], tmp_path / "query.png")
    return tmp_path


def run(line, place):
    """Returns a command line and its output, without what differs by machine."""
    process = run_command(shlex.split(line)[1:], folder=place)
    assert process.returncode == 0, process.stderr
    text = without_times(process.stderr) + process.stdout
    text = with_placeholders(text.replace(str(place), "/HOME"))
    return f"$ {line}\n{text.rstrip()}\n"


def with_placeholders(text):
    for pattern, replacement in PLACEHOLDERS:
        text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return text


def test_every_number_has_a_placeholder():
    assert with_placeholders("0.0e+00, 1.2e-07 and -0.003 of 12") == "#, # and # of 12"


def test_commands_print_what_the_transcript_has(place):
    text = "\n".join(run(line, place) for line in read_commands())
    if os.environ.get("WRITE_TRANSCRIPT"):
        TRANSCRIPT.write_text(text, "utf-8")
    assert text == TRANSCRIPT.read_text("utf-8")


def test_the_transcript_has_every_command():
    names = {shlex.split(line)[1] for line in read_commands()}
    assert names == list_commands().keys() - ELSEWHERE
