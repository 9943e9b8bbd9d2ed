"""The main job as a user runs it: real processes, real files, real signals.

Most processes are forked; those that are not also show that the job starts.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

from helpers import shrunk
from helpers.browser import open_in_browser
from helpers.commands import run_command
import numpy as np
import orbax.checkpoint as ocp
import pytest

from deeprank_jax import checksums
from deeprank_jax.training import metrics_writer
from tools.faults.forked import Forked

ROOT = pathlib.Path(__file__).parents[2]
ENV = {**os.environ, "JAX_NUM_CPU_DEVICES": "1"}


def arguments(images, workdir, *flags, **values):
    return [
        f"--config={ROOT / 'configs' / 'base.py'}",
        f"--config.data.dir={images}", f"--workdir={workdir}",
        *shrunk.flags(**values), *flags,
    ]  # fmt: skip


def command(*args, **kwargs):
    return [sys.executable, "-m", "deeprank_jax.main", *arguments(*args, **kwargs)]


def run(*args, environment=ENV, **kwargs):
    """Returns a run that has ended, in a forked process."""
    words = ["train", *arguments(*args, **kwargs)]
    return run_command(words, folder=ROOT, environment=environment)


def run_anew(*args, **kwargs):
    """Returns a run that has ended, in a process that was started for it."""
    return subprocess.run(
        command(*args, **kwargs),
        cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    directory = tmp_path_factory.mktemp("images")
    return shrunk.write_images(directory / "own photos", num_classes=12, num_images=6)


@pytest.fixture(scope="module")
def uninterrupted(images, tmp_path_factory):
    """Returns the workdir of a finished run."""
    workdir = tmp_path_factory.mktemp("uninterrupted")
    done = run_anew(images, workdir, num_steps=16)
    assert done.returncode == 0, done.stderr
    return workdir


def final_params(workdir):
    """Returns the arrays of the last checkpoint, by name."""
    last = max((workdir / "checkpoints").iterdir(), key=lambda p: int(p.name))
    with ocp.StandardCheckpointer() as checkpointer:
        return last.name, {
            k: np.asarray(v) for k, v in checkpointer.restore(last / "state").items()
        }


def losses(workdir):
    entries = metrics_writer.read_metrics(workdir)
    return {e["step"]: e["train/loss"] for e in entries if "train/loss" in e}


def assert_same_run(one, other):
    step, params = final_params(one)
    other_step, other_params = final_params(other)
    assert step == other_step
    assert params.keys() == other_params.keys()
    for name, array in params.items():
        np.testing.assert_array_equal(array, other_params[name], err_msg=name)
    assert losses(one) == losses(other)
    for name in ("results.json", "intervals.json"):
        assert (one / name).read_text() == (other / name).read_text()


def test_own_images_end_in_a_report(uninterrupted):
    workdir = uninterrupted
    assert (workdir / "report" / "index.html").stat().st_size > 10_000
    results = json.loads((workdir / "results.json").read_text())
    assert results["test"]["retrieval"]["recall@1"].keys() == {
        "model", "untrained", "pixels",
    }  # fmt: skip
    intervals = json.loads((workdir / "intervals.json").read_text())
    assert intervals.keys() == results.keys()
    # Test has six classes, too few.
    assert intervals["test"]["retrieval"]["recall@1"] == {}
    logged = metrics_writer.read_metrics(workdir)
    train = [entry for entry in logged if "train/loss" in entry]
    for name in ("active_share", "stall_share", "images_per_second", "effective_rank"):
        assert all(np.isfinite(entry[f"train/{name}"]) for entry in train)
    assert all(
        abs(sum(v for k, v in entry.items() if k.startswith("train/positives/")) - 1)
        < 1e-6
        for entry in train
    )
    assert not (workdir / "bad_images.csv").exists()


def test_the_report_opens_in_a_browser(uninterrupted, tmp_path):
    page = (uninterrupted / "report" / "index.html").read_text(encoding="utf-8")
    found, console = open_in_browser(page, tmp_path)
    assert console == []
    assert found["images"] > 50
    assert (found["broken"], found["violations"], found["requests"]) == (0, [], [])


def test_two_runs_are_bit_identical(images, uninterrupted, tmp_path):
    done = run(images, tmp_path, num_steps=16)
    assert done.returncode == 0, done.stderr
    assert_same_run(uninterrupted, tmp_path)


def kill_and_go_on(images, whole, workdir, moments):
    """Kills a run at each of `moments`, (step, seconds after it), then lets it end."""
    interrupted = 0
    for step, seconds in moments:
        log = workdir / "metrics.jsonl"
        before = log.stat().st_ino if log.exists() else None
        words = ["train", *arguments(images, workdir, num_steps=16)]
        # With pictures, so that the end takes longer than it waits to be killed.
        process = Forked(
            words, pathlib.Path(os.devnull), environment=ENV, has_pictures=True
        )
        # The file is replaced when training starts: what it says then is the process's.
        wait_until(
            lambda step=step, before=before, log=log: (
                log.exists()
                and log.stat().st_ino != before
                and max(losses(workdir), default=0) >= step
            )
        )
        time.sleep(seconds)
        interrupted += process.poll() is None
        process.kill()
        process.wait()
    done = run(images, workdir, num_steps=16)
    assert done.returncode == 0, done.stderr
    assert interrupted == len(moments)
    # Something was saved, and used: not every process began anew.
    assert "Continuing from step" in done.stderr
    assert_same_run(whole, workdir)


def test_a_killed_run_ends_as_if_it_had_not_been(images, uninterrupted, tmp_path):
    # After the first saves; among later ones; when the end is written.
    kill_and_go_on(images, uninterrupted, tmp_path, [(4, 0.05), (10, 0.0), (16, 0.3)])


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_twenty_kills(images, uninterrupted, tmp_path):
    rng = np.random.default_rng(0)
    steps = np.sort(rng.integers(1, 9, 20)) * 2
    moments = [(int(step), rng.uniform(0.0, 0.2)) for step in steps]
    kill_and_go_on(images, uninterrupted, tmp_path, moments)


# With a handler of Ctrl-C also where the tests run in the background, which ignores it.
WITH_CTRL_C = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
runpy.run_module("deeprank_jax.main", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_leaves_within_ten_seconds(images, tmp_path, number):
    rare = {"checkpoint_every": 100_000, "eval_every": 100_000}
    flags = arguments(images, tmp_path, num_steps=100_000, **rare)
    process = subprocess.Popen(
        [sys.executable, "-c", WITH_CTRL_C, *flags],
        cwd=ROOT, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_until(lambda: losses(tmp_path))
    start = time.monotonic()
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert time.monotonic() - start < 10
    assert process.returncode == 128 + number
    assert "Traceback" not in stderr
    (saved,) = (tmp_path / "checkpoints").iterdir()
    assert (
        f"{number.name}: stopped; run again to continue from step {saved.name}"
        in stderr
    )


def test_a_run_stopped_before_it_was_validated_is_validated_later(
    images, uninterrupted, tmp_path
):
    """As after SIGTERM at a step that is due: saved, and without metrics."""
    first = run(images, tmp_path, num_steps=16)
    assert first.returncode == 0, first.stderr
    (tmp_path / "results.json").unlink()
    shutil.rmtree(tmp_path / "checkpoints" / "16" / "metrics")
    checksums.write_checksums(tmp_path / "checkpoints" / "16")
    again = run(images, tmp_path, num_steps=16)
    assert again.returncode == 0, again.stderr
    assert "is damaged" not in again.stderr
    assert (tmp_path / "checkpoints" / "16" / "metrics").exists()
    assert_same_run(uninterrupted, tmp_path)


def test_a_second_process_is_kept_out(images, tmp_path):
    first = subprocess.Popen(
        command(images, tmp_path, num_steps=100_000),
        cwd=ROOT, env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until(lambda: (tmp_path / "lock").exists())
        sentence = refused(run(images, tmp_path))
        assert f"Process {first.pid} is training in {tmp_path}: wait until" in sentence
    finally:
        first.kill()
        first.wait()


def wait_until(condition, timeout=120):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def refused(done, *, quiet=True):
    """Returns the one sentence that a refused run ends with."""
    assert done.returncode == 1, done.stderr
    lines = done.stderr.strip().splitlines()
    if quiet:
        assert "Traceback" not in done.stderr
        lines = lines[-1:]
    # Threads of a library may print around it, if they have to.
    sentences = [
        line.strip() for line in lines if line.strip().startswith("deeprank train: ")
    ]
    assert len(sentences) == 1, done.stderr
    return sentences[0]


def test_another_model_in_the_workdir_is_refused(images, uninterrupted):
    done = run(images, uninterrupted, num_steps=16, **{"model.embedding_dim": 9})
    sentence = refused(done)
    assert "holds another model or optimizer: " in sentence
    assert "embedding/bias" in sentence
    assert "Give another --workdir" in sentence


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dict(seed=3), "config.seed was 0 and is 3 now"),
        # Nothing would be trained, and the old results would go by a new name.
        ({"loss.miner": "sampled"}, "config.loss.miner.name was semi_hard"),
        (dict(num_steps=12), "is at step 16, past config.num_steps=12"),
    ],
)
def test_another_run_in_the_workdir_is_refused(images, uninterrupted, change, said):
    before = (uninterrupted / "results.json").read_bytes()
    assert said in refused(run(images, uninterrupted, **{"num_steps": 16, **change}))
    assert (uninterrupted / "results.json").read_bytes() == before


def test_a_damaged_checkpoint_is_made_anew(images, uninterrupted, tmp_path):
    """The run continues from the checkpoint before it, and ends with the same bits."""
    copy = shutil.copytree(uninterrupted, tmp_path / "copy")
    arrays = (copy / "checkpoints" / "16" / "state").rglob("d/*")
    file = max(arrays, key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    done = run(images, copy, num_steps=16)
    assert done.returncode == 0, done.stderr
    assert f"{copy / 'checkpoints' / '16'} is damaged" in done.stderr
    assert_same_run(uninterrupted, copy)


WRONG_FLAGS = {
    "--config.batch_sise=8": ["batch_sise", "did you mean", "batch_size"],
    "--config.batch_size=many": ["batch_size", "many"],
    "--config.loss.miner=hard": ["loss.miner", "semi_hard"],
    "--config.data.dir=/nowhere": ["/nowhere"],
    "--config.log_every=0": ["config.log_every must be at least 1"],
    "--config.data.augment.zoom=-0.1": [
        "config.data.augment.zoom must be at least 0",
        "got -0.1",
    ],
    "--config.relevance.name=hierarchy": ["config.relevance.levels"],
    "--config.evaluation.gains=(1.0, 2.0)": ["gains has 2 values", "1 levels"],
    "--config.evaluation.best_metric=recall": ["best_metric", "retrieval/map@r"],
    "--config=configs/nothing.py": ["configs/nothing.py"],
    "--config.task=regression": ["'regression'", "classification"],
    "--config.init_from=/nowhere": ["/nowhere: no checkpoint is there"],
    "--config.model.weights=/nowhere.pth": ["/nowhere.pth", "model.weights"],
    "--config.model.weights=package": ["'package'", "convnet"],
    "--config.model.weights=a --config.init_from=b": ["both name", "give one"],
    "--config.model.batch_norm=none": ["batch_norm", "frozen"],
    "--config.optimizer.trunk_scale=-1": ["trunk_scale must be at least 0"],
    "--config.accumulate_steps=3": ["accumulate_steps=3 does not divide"],
    "--config.model.trunk.name=alexnet": ["image_size must be at least 63", "alexnet"],
}
# Runs command lines, one after the other, and prints how each ends.
PROGRAM = """
import contextlib, io, json, sys
from deeprank_jax.cli.__main__ import main
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stderr(io.StringIO()) as told:
        try:
            main(words)
            ended = 0
        except SystemExit as error:
            ended = error.code
    print(json.dumps([ended, told.getvalue()]))
"""


@pytest.fixture(scope="module")
def refusals(images, tmp_path_factory):
    """Returns how training ends with each wrong flag: status or sentence, and stderr.

    They are tried in one process, which takes a fraction of the time.
    """
    workdir = tmp_path_factory.mktemp("refused") / "run"
    words = [
        ["train", *arguments(images, workdir, *re.split(r" (?=--)", flag))]
        for flag in WRONG_FLAGS
    ]
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", PROGRAM, json.dumps(words)],
        cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ends = [json.loads(line) for line in done.stdout.splitlines()]
    return dict(zip(WRONG_FLAGS, ends, strict=True))


@pytest.mark.parametrize("flag", WRONG_FLAGS)
def test_a_wrong_flag_gets_one_sentence(refusals, flag):
    sentence, told = refusals[flag]
    assert isinstance(sentence, str), told
    assert sentence.startswith("deeprank train: ")
    assert "\n" not in sentence.strip()
    assert "Traceback" not in told
    assert all(text in sentence for text in WRONG_FLAGS[flag]), sentence


def test_a_process_with_a_wrong_flag_ends_with_a_sentence(images, tmp_path):
    sentence = refused(run_anew(images, tmp_path / "run", "--config.batch_sise=8"))
    assert "did you mean" in sentence


def test_a_batch_that_does_not_divide_is_refused(images, tmp_path):
    environment = {**ENV, "JAX_NUM_CPU_DEVICES": "4"}
    done = run(images, tmp_path / "run", batch_size=6, environment=environment)
    assert "batch_size=6 does not divide over 4 devices" in refused(done)


def test_bad_images_are_listed_and_the_run_goes_on(images, tmp_path):
    own = tmp_path / "own"
    shrunk.write_images(own, num_classes=12, num_images=6)
    (own / "class 00" / "page.jpg").write_text("<html>")
    (own / "class 01" / "nothing.png").write_bytes(b"")
    whole = (own / "class 02" / "1.png").read_bytes()
    (own / "class 02" / "half.png").write_bytes(whole[: len(whole) // 2])
    done = run(own, tmp_path / "run", **{"data.max_bad_share": 0.1})
    assert done.returncode == 0, done.stderr
    listed = (tmp_path / "run" / "bad_images.csv").read_text()
    assert all(name in listed for name in ("page.jpg", "nothing.png", "half.png"))
    assert "page.jpg: not an image (first bytes '<htm" in done.stderr
    few = run(own, tmp_path / "strict", **{"data.max_bad_share": 0.01})
    assert "config.data.max_bad_share=0.01" in refused(few)


def test_divergence_names_the_records_and_stops(images, tmp_path):
    done = run(
        images, tmp_path, max_skipped=3, num_steps=100,
        **{"optimizer.learning_rate": 1e38},
    )  # fmt: skip
    sentence = refused(done)
    assert "3 steps in a row were not finite" in sentence
    assert "Lower config.optimizer.learning_rate" in sentence
    assert re.search(r"class \d\d/\d\.png", sentence)
    # Nothing poisoned was saved, and the advice holds.
    again = run(images, tmp_path, num_steps=20, **{"optimizer.learning_rate": 1e-3})
    assert again.returncode == 0, again.stderr


def test_a_full_disk_gets_one_sentence_and_loses_nothing(images, tmp_path):
    """A limit on the size of files stands in for the disk's end."""
    wide = {"model.embedding_dim": 256, "schedule.name": "constant"}
    first = run(images, tmp_path, num_steps=8, **wide)
    assert first.returncode == 0, first.stderr
    # 64 KiB: what is logged fits, a checkpoint does not.
    limited = ["bash", "-c", 'ulimit -f 64; exec "$@"', "bash"]
    full = subprocess.run(
        [*limited, *command(images, tmp_path, num_steps=12, **wide)],
        cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    # TensorStore prints what its own threads met.
    sentence = refused(full, quiet=False)
    assert "the checkpoint could not be written" in sentence
    assert "step 8 is the last" in sentence
    # So small a disk that not even the log fits.
    limited[2] = limited[2].replace("64", "8")
    log_full = subprocess.run(
        [*limited, *command(images, tmp_path, num_steps=4000, log_every=1, **wide)],
        cwd=ROOT, env=ENV, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "ake room" in refused(log_full, quiet=False)
    again = run(images, tmp_path, num_steps=12, **wide)
    assert again.returncode == 0, again.stderr
    assert "Continuing from step 8" in again.stderr


def start_in_background(images, workdir, log):
    """Starts a run that Ctrl-C reaches, with its text in a file."""
    with log.open("w") as file:
        return subprocess.Popen(
            [sys.executable, "-c", WITH_CTRL_C, *arguments(images, workdir)],
            cwd=ROOT, env=ENV, stdout=file, stderr=file,
        )  # fmt: skip


def test_a_signal_before_and_after_the_loop_ends_it_too(images, tmp_path):
    """In the preparation of data, in compilation and in the final report."""
    workdir, log = tmp_path / "run", tmp_path / "log.txt"
    for number, reached in (
        (signal.SIGHUP, lambda: (workdir / "config.json").exists()),
        (signal.SIGINT, lambda: "Writing the report." in log.read_text()),
    ):
        process = start_in_background(images, workdir, log)
        wait_until(reached)
        start = time.monotonic()
        process.send_signal(number)
        assert process.wait(timeout=60) == 128 + number, log.read_text()
        assert time.monotonic() - start < 10
        assert "Traceback" not in log.read_text()
        # After the first step it says which one is saved.
        last = log.read_text().splitlines()[-1]
        assert last.startswith(f"deeprank train: {number.name}: stopped; run ")
        assert "again to continue" in last
        assert not (workdir / "lock").exists()
        assert not list(tmp_path.rglob("*.tmp"))
    assert not (workdir / "report" / "index.html").exists()
    again = run(images, workdir)
    assert again.returncode == 0, again.stderr
    assert (workdir / "report" / "index.html").exists()
