"""Names that others chose neither control a terminal nor become formulas."""

import csv
import io
import json
import logging as python_logging
import re
import subprocess
import sys

import pytest

from deeprank_jax import logs
from deeprank_jax.cli import output
from deeprank_jax.data.reader import BadImages

NAME = "=x\x1b[2J\n\u202egpj.exe"
SHOWN = "=x\\x1b[2J\\n\\u202egpj.exe"


def test_tables_show_names_without_control_characters():
    text = output.format_table(("rank", "path"), [(1, NAME), (2, "plain")])
    assert text.split("\n") == ["rank  path", f"1     {SHOWN}", "2     plain"]
    result = output.Result({"path": NAME}, f"Wrote {NAME}.\nNext")
    assert result.format(as_json=False) == ("Wrote =x\\x1b[2J\n\\u202egpj.exe.\nNext\n")
    assert json.loads(result.format(as_json=True)) == {"path": NAME}


def test_cells_of_a_csv_are_no_formulas():
    content = output.format_csv(("a", "b", "c"), [(NAME, -1.5, "-x"), ("@y", 2, "")])
    rows = list(csv.reader(io.StringIO(content.decode(), newline="")))
    assert rows == [["a", "b", "c"], [f"'{NAME}", "-1.5", "'-x"], ["'@y", "2", ""]]


def test_bad_images_are_listed_once_and_as_no_formula(tmp_path):
    for _ in range(2):
        bad = BadImages(tmp_path / "bad.csv", 10, 1.0)
        bad.add("train", NAME, "@reason")
        bad.add("train", "plain", "reason")
    with (tmp_path / "bad.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[1:] == [["train", f"'{NAME}", "'@reason"], ["train", "plain", "reason"]]


def test_messages_of_the_log_cannot_control_a_terminal(capsys):
    script = (
        "from absl import logging; from deeprank_jax import logs;"
        "from deeprank_jax.data.reader import BadImages;"
        "logs.configure_logging();"
        f"BadImages(None, 9, 1.0).add('train', {NAME!r}, 'bad');"
        f"logging.info('%s: read', {NAME[:-10]!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert f"{SHOWN}: bad; skipped" in done.stderr
    assert "\x1b" not in done.stderr
    assert "\u202e" not in done.stderr


@pytest.mark.parametrize("style", logs.Style)
def test_each_style_escapes_control_characters(style):
    record = python_logging.LogRecord("x", 20, __file__, 1, "a\x1bb\nc", (), None)
    text = logs._Formatter(style).format(record)
    assert text.endswith("a\\x1bb\nc")
    begin = {"PLAIN": "a", "DATED": r"\d{4}-\d\d-\d\d [\d:]{8} a", "DETAILED": "I"}
    assert re.match(begin[style.name], text)


@pytest.mark.slow
def test_errors_cannot_control_a_terminal(tmp_path):
    folder = tmp_path / "a\x1b[31m\u202e"
    done = subprocess.run(
        [sys.executable, "-m", "deeprank_jax.cli", "doctor", str(folder)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode
    assert "\\x1b[31m\\u202e" in done.stderr
    assert "\x1b" not in done.stderr
