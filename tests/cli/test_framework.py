"""The command line itself: discovery, help, exit statuses, JSON and completion."""

import argparse
import errno
import json
import math
import os
import pathlib
import resource
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from deeprank_jax.cli import __main__, arguments, commands, output
from deeprank_jax.distributed import backend
from deeprank_jax.errors import DataError, UserError

ROOT = pathlib.Path(__file__).parents[2]
HEAVY = ("jax", "flax", "orbax", "optax", "tensorflow_datasets", "cv2", "numpy")
NAMES = sorted(commands.list_commands())


def python(code, **options):
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT, capture_output=True, text=True, timeout=60, **options,
    )  # fmt: skip


IMPORTED = f"""
import sys
from deeprank_jax.cli.__main__ import main
try:
    main(WORDS)
finally:
    print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["--help"], 0),
        (["train", "--help"], 0),
        (["golden-feature", "--help"], 0),
        (["search", "a.png"], 2),
        (["serch"], 2),
        (["search", "a.png", "--index=gone"], 1),
        (["compare", "a.png", "b.png", "--model=gone"], 1),
        (["embed", "photos", "--model=configs", "--out=x.csv"], 1),
        (["export", "--workdir=gone", "--out=model"], 1),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else None,
)
def test_nothing_heavy_is_imported_for_help_and_refusals(words, status):
    done = python(IMPORTED.replace("WORDS", repr(words)))
    assert done.returncode == status, done.stderr
    assert done.stderr.splitlines()[-1 if status != 1 else 0] == "[]", done.stderr


def test_help_comes_at_once():
    """In processor time, which other processes do not disturb."""
    command = [sys.executable, "-m", "deeprank_jax.cli", "--help"]
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime - before.ru_utime)
    assert min(seconds) <= 0.3


def test_every_command_is_listed_and_described(capsys):
    with pytest.raises(SystemExit) as stopped:
        __main__.main(["--help"])
    assert stopped.value.code == 0
    listing = capsys.readouterr().out
    assert {"train", "golden-feature", "paper-table"} <= set(NAMES)
    for name in NAMES:
        assert f"    {name}" in listing
        first = commands.list_commands()[name]
        assert first[:1].isupper()
        with pytest.raises(SystemExit) as stopped:
            __main__.main([name, "--help"])
        assert stopped.value.code == 0
        text = capsys.readouterr().out
        assert text.startswith(f"usage: deeprank {name} ")
        assert first in text
        assert "--json" in text


def test_every_argument_has_a_help_text():
    for name in NAMES:
        parser = argparse.ArgumentParser()
        commands.load_command(name).add_arguments(parser)
        assert [x.dest for x in parser._actions if not x.help] == [], name


def test_help_has_the_defaults_that_mean_something(capsys):
    with pytest.raises(SystemExit):
        __main__.main(["search", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "number of images to find (default: 10)" in text
    assert "(default: None)" not in text


@pytest.mark.parametrize("words", [["--config=emoji"], ["--config", "emoji"]])
def test_the_help_of_a_config_has_its_keys(capsys, words):
    with pytest.raises(SystemExit) as stopped:
        __main__.main(["train", *words, "--help"])
    assert stopped.value.code == 0
    assert "--config.optimizer.learning_rate=0.006" in capsys.readouterr().out


def test_the_help_of_an_unknown_config(capsys):
    with pytest.raises(SystemExit) as stopped:
        __main__.main(["train", "--config=emojy", "--help"])
    assert stopped.value.code == 2
    assert "did you mean 'emoji'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "usage", "message"),
    [
        (["search", "a.png"], "search", "required: --index"),
        (["train", "--bath_size=3"], "train", "unrecognized arguments: --bath_size=3"),
        (
            ["embed", "x", "--model=m", "--out=o", "--config.seed=1"],
            "embed",
            "--config",
        ),
        (["clusters", "x", "--model=m", "--max_distance=-1"], "clusters", "0 or more"),
        (["train", "--num_processes=0"], "train", "0 is below 1"),
        (["serch"], "", r"there is no command 'serch' (did you mean 'search'?)"),
        ([], "", "COMMAND"),
    ],
)
def test_wrong_arguments_show_the_usage_of_the_command(capsys, words, usage, message):
    with pytest.raises(SystemExit) as stopped:
        __main__.main(words)
    assert stopped.value.code == 2
    text = capsys.readouterr().err
    assert text.startswith(f"usage: deeprank {usage}".rstrip())
    assert message in text


def test_the_version(capsys):
    with pytest.raises(SystemExit) as stopped:
        __main__.main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out.startswith("deeprank_jax ")


def test_a_command_without_arguments_has_its_defaults():
    options = __main__.create_parser("train").parse_args(["train"])
    assert (options.config, list(options.overrides)) == ("emoji", [])


def test_overrides_are_separated_from_other_words():
    words = ["--config=x", "--config.a=1", "p", "--config.b", "-2", "--config.c", "--d"]
    assert arguments.split_overrides(words) == (
        ["--config=x", "p", "--d"],
        ["--config.a=1", "--config.b", "-2", "--config.c"],
    )
    assert arguments.split_overrides(["--", "--config.a=1"])[1] == []


@pytest.fixture
def command(monkeypatch):
    """Returns a function that makes `deeprank doctor` run a function of the test."""
    monkeypatch.setattr(backend, "keep_compiled", lambda: None)

    def replace(run):
        module = SimpleNamespace(
            __doc__="Doc.", add_arguments=lambda parser: None, run=run
        )
        monkeypatch.setattr(commands, "load_command", lambda name: module)
        return lambda *words: __main__.main(["doctor", *words])

    return replace


def failing(error):
    def run(options):
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DataError("no image"), "deeprank doctor: no image"),
        (
            OSError(errno.ENOSPC, "No space left on device", "x.csv"),
            "deeprank doctor: x.csv cannot be used (No space left on device): make "
            "room, or give another path.",
        ),
        (
            OSError(errno.EMFILE, "Too many open files", "x.csv"),
            "deeprank doctor: Too many open files: allow more, e.g. by ulimit -n 1024, "
            "and run the same command again.",
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "x.csv"),
            "deeprank doctor: x.csv cannot be used (Permission denied): check its "
            "permissions, or give another path.",
        ),
        (
            MemoryError("Unable to allocate 3.00 GiB"),
            "deeprank doctor: too little memory (Unable to allocate 3.00 GiB): free "
            "some, raise its limit (ulimit -v, ulimit -u), or use smaller batches or "
            "images.",
        ),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda x: type(x).__name__,
)
def test_errors_of_a_user_are_one_line(command, error, code):
    with pytest.raises(SystemExit) as stopped:
        command(failing(error))()
    assert stopped.value.code == code


def test_a_thread_that_could_not_start_is_told_from_a_bug(command):
    """Whatever error came of it, e.g. of a library that waits for the thread."""
    error = RuntimeError("cannot join thread before it is started")
    error.__context__ = RuntimeError("can't start new thread")
    with pytest.raises(SystemExit, match=r"too little memory \(can't start new thread"):
        command(failing(error))()
    with pytest.raises(RuntimeError, match="a bug"):
        command(failing(RuntimeError("a bug")))()


@pytest.mark.parametrize(
    "error",
    [ValueError("a bug"), KeyError("a bug"), OSError(errno.EIO, "a bug", "x")],
    ids=lambda x: type(x).__name__,
)
def test_a_bug_keeps_its_traceback(command, error):
    with pytest.raises(type(error), match="a bug"):
        command(failing(error))()


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)],
)
def test_a_signal_ends_a_command_with_its_own_status(command, number, status):
    # Also where the tests run in the background, which ignores some.
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(SystemExit) as stopped:
            command(lambda options: os.kill(os.getpid(), number))()
        assert stopped.value.code == status
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_a_closed_pipe_has_a_status_of_its_own(tmp_path):
    code = (
        "import sys; from deeprank_jax.cli.__main__ import main\n"
        "sys.stdin.read(1)\n"
        "main(['configs'])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    process.stdout.close()
    process.stdin.write(b"x")
    process.stdin.close()
    stderr = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=60) == 141
    assert stderr == b""


def test_json_is_all_there_is_on_stdout(command, capsys):
    def run(options):
        print("a library prints")
        values = {
            "path": pathlib.Path("x"), "array": np.arange(3), "nan": math.nan,
            "scalar": np.float32(0.5), "inf": np.float64(np.inf), "none": None,
            "yes": np.bool_(True), "list": (1, "é"),
        }  # fmt: skip
        return output.Result(values, "text")

    command(run)("--json")
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {
        "path": "x", "array": [0, 1, 2], "nan": None, "scalar": 0.5, "inf": None,
        "none": None, "yes": True, "list": [1, "é"],
    }  # fmt: skip
    assert "a library prints" in printed.err
    command(run)()
    assert capsys.readouterr().out == "a library prints\ntext\n"


def test_cheap_checks_come_before_the_command(command, monkeypatch):
    run = failing(AssertionError("the command ran"))
    call = command(run)
    module = commands.load_command("doctor")
    module.check = failing(DataError("refused"))
    with pytest.raises(SystemExit, match="deeprank doctor: refused"):
        call()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("deeprank dup", {"duplicates "}),
        ("deeprank search x --ind", {"--index "}),
        ("deeprank index x --kind ", {"auto", "exact", "hnsw"}),
    ],
)
def test_a_shell_completes(line, words):
    pytest.importorskip("argcomplete")
    read, write = os.pipe()
    environment = {
        "_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\013", "COMP_LINE": line,
        "COMP_POINT": str(len(line)), "_ARGCOMPLETE_SUPPRESS_SPACE": "0",
        "_ARGCOMPLETE_STDOUT_FILENAME": f"/dev/fd/{write}",
    }  # fmt: skip
    subprocess.run(
        [sys.executable, "-m", "deeprank_jax.cli"],
        cwd=ROOT, env={**os.environ, **environment}, pass_fds=(write,), timeout=60,
    )  # fmt: skip
    os.close(write)
    with os.fdopen(read) as file:
        assert set(file.read().split("\013")) == words


def test_the_command_line_kept_with_results_names_no_place():
    words = ["ablation", "--config=x", "--config.data.dir=/home/me", "--workdir=/tmp"]
    assert arguments.join_words(words) == "deeprank ablation --config=x"


@pytest.mark.parametrize(
    "name", ["query.png", "photos/cat.png", "link.png", "list.csv"]
)
def test_a_file_that_is_read_is_not_overwritten(tmp_path, name):
    (tmp_path / "photos").mkdir()
    for path in ("query.png", "photos/cat.png", "photos/old.csv", "list.csv"):
        (tmp_path / path).touch()
    (tmp_path / "link.png").symlink_to("query.png")
    inputs = [str(tmp_path / x) for x in ("query.png", "photos", "list.csv")]
    check = lambda x: arguments.check_out(
        str(tmp_path / x), (".png", ".csv"), [*inputs, "tfds:emoji/test"]
    )
    with pytest.raises(UserError, match="would overwrite a file that is read"):
        check(name)
    for other in ("new.png", "photos/new.png", "photos/old.csv"):
        check(other)
