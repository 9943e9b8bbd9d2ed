"""Bars on a terminal, and lines where there is none."""

import io
import re
import subprocess
import sys
import time
import types

from absl import logging
import pytest

from deeprank_jax import logs, progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def lines(monkeypatch):
    """Returns the lines that are logged, the first at once."""
    logged = []
    monkeypatch.setattr(logging, "info", lambda text, *args: logged.append(text % args))
    monkeypatch.setattr(progress, "_LINE_SECONDS", 0.01)
    monkeypatch.setattr(progress, "_NAME_SECONDS", 0.01)
    return logged


@pytest.fixture
def terminal(monkeypatch):
    stream = Terminal()
    # Not that of the process, which pytest replaces before each test.
    monkeypatch.setattr(progress, "sys", types.SimpleNamespace(stderr=stream))
    monkeypatch.setattr(progress, "_BAR_SECONDS", 0.01)
    return stream


def wait_until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_without_a_terminal_a_line_says_how_far_it_is(lines, capsys):
    with progress.Bar(desc="train", total=2000, unit="step") as bar:
        wait_until(lambda: lines)
        bar.update(1000)
        bar.show({"loss": "0.5", "images": "9/s"})
        wait_until(lambda: "loss" in lines[-1])
    assert lines[0] == "train: 0 of 2,000 steps."
    expected = (
        r"train: 1,000 of 2,000 steps, loss 0\.5, images 9/s, about [\d:]+ left\."
    )
    assert re.fullmatch(expected, lines[-1])
    assert capsys.readouterr().err == ""


def test_an_operation_of_unknown_length_is_named(lines):
    with progress.working("Compiling the training step"):
        wait_until(lambda: lines)
    assert lines[0] == "Compiling the training step ... 00:00"
    count = len(lines)
    time.sleep(0.05)
    assert len(lines) <= count + 1


def test_the_newest_bar_has_the_lines(lines):
    with progress.Bar(desc="train", total=2, unit="step"):
        wait_until(lambda: lines)
        with progress.working("Compiling"):
            wait_until(lambda: "Compiling ... 00:00" in lines)
            lines.clear()
            wait_until(lambda: len(lines) > 3)
            assert set(lines) == {"Compiling ... 00:00"}
        lines.clear()
        wait_until(lambda: "train: 0 of 2 steps." in lines)


def test_items_are_counted(lines):
    with progress.Bar(range(3), desc="test", total=3, unit="batch") as bar:
        for _ in bar:
            wait_until(lambda: lines)
            lines.clear()
    assert bar.n == 3
    assert bar.line() == "test: 3 of 3 batches."


def test_a_bar_moves_though_nothing_is_done(terminal):
    with progress.working("Compiling"):
        wait_until(lambda: terminal.getvalue().count("Compiling ... 00:00") > 2)


def test_a_bar_that_is_left_unfinished_ends(terminal):
    bar = progress.Bar(range(9), desc="left", total=9)
    ended = bar.ended
    iter(bar)
    del bar
    wait_until(ended.is_set)


def test_compilation_does_not_count_for_the_time_left(monkeypatch, lines):
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    bar = progress.Bar(desc="train", total=11, unit="step", shown=False)
    clock[0] += 1000.0  # Compiles.
    bar.restart_clock()
    clock[0] += 2.0
    bar.update()
    assert bar.line() == "train: 1 of 11 steps, about 00:20 left."


def test_the_bar_itself_forgets_the_compilation(terminal):
    with progress.Bar(desc="train", total=11, unit="step") as bar:
        bar.start_t -= 1000.0
        bar.last_print_t -= 1000.0
        bar.restart_clock()
        assert bar.format_dict["elapsed"] < 100


def test_hidden_bars_draw_nothing(terminal):
    with progress.without_bars(), progress.Bar(desc="train", total=3) as bar:
        bar.update()
        time.sleep(0.05)
    assert terminal.getvalue() == ""
    with progress.Bar(desc="train", total=3):
        assert "train" in terminal.getvalue()


def test_a_line_does_not_break_a_bar():
    """In a process of its own, as it configures the logging of the process."""
    script = f"""
import io, sys
from absl import logging
class Terminal(io.StringIO):
    def isatty(self):
        return True
stdout, sys.stderr = sys.stdout, Terminal()
from deeprank_jax import logs
from deeprank_jax import progress
logs.configure_logging(style=logs.Style.{logs.Style.DATED.name})
with progress.Bar(desc="train", total=3, ncols=50):
    logging.warning("careful")
stdout.write(repr(sys.stderr.getvalue()))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    # Blanks hide the bar, before the line begins.
    assert re.search(r" {20}\\rWarning: careful\\n\\rtrain: ", done.stdout), done.stdout
