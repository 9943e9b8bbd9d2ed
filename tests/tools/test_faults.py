"""A few trials of each kind of fault, and a campaign that tells what it finds."""

import json
import pathlib
import random

import pytest

from deeprank_jax import checksums
from deeprank_jax.errors import DataError
from tools.faults import __main__, damage, runner, trial
from tools.faults.kinds import KINDS, QUICK
from tools.faults.samples import Samples

# Kinds that train, export or open a checkpoint.
SLOW = {"checkpoints": 2, "model": 6, "compared_run": 8, "embedding_table": 8}
# Kinds whose files are made whole again, or restored, without a word.
MENDED = ("bad_images",)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return Samples(tmp_path_factory.mktemp("samples"))


@pytest.mark.parametrize("name", QUICK)
def test_a_few_trials_of_each_kind_find_nothing(samples, name, capsys):
    failures = []
    counts = runner.run_kinds(
        {name: QUICK[name]},
        samples,
        num_trials=SLOW.get(name, 25),
        seed=1,
        report=failures.append,
    )
    assert failures == []
    assert runner.count_failures(counts) == 0
    mended = "harmless" if name in MENDED else "detected"
    assert counts[f"{name}_{mended}"] > 0


class Note:
    """Kind whose only file is read by the function of the test."""

    read = staticmethod(pathlib.Path.read_bytes)

    def prepare(self, samples, folder):
        folder.mkdir()
        (folder / "note").write_bytes(b"some text")

    def run(self, folder, rng):
        path = folder / "note"
        path.write_bytes(b"some text")
        fault = damage.damage(path, rng)
        return trial.judge(fault, ["note"], lambda: self.read(path), b"some text", 0.2)


def refuse(path):
    raise DataError(f"{path} is damaged")


def refuse_another(path):
    raise DataError("a file is damaged")


def wait(path):
    while True:
        pass


def fail(path):
    raise KeyError(path)


@pytest.mark.parametrize(
    ("read", "outcome"),
    [
        (refuse, "detected"),
        (refuse_another, "silent"),
        (lambda path: b"some text", "harmless"),
        (lambda path: b"", "silent"),
        (wait, "hung"),
        (fail, "traceback"),
    ],
)
def test_every_end_is_counted_and_can_be_repeated(tmp_path, read, outcome):
    kind = type("Kind", (Note,), {"read": staticmethod(read)})
    run = lambda **options: runner.run_kinds(
        {"note": kind}, Samples(tmp_path), **options
    )
    lines = []
    counts = run(num_trials=3, seed=7, report=lines.append)
    assert counts == {
        f"note_{name}": 3 if name in ("tried", outcome) else 0
        for name in ("tried", *trial.Outcome)
    }
    is_failure = outcome in trial.FAILURES
    assert runner.count_failures(counts) == len(lines) == 3 * is_failure
    if lines:
        assert "--only=note --seed=7 --first=2 --trials=1" in lines[2]
        again = []
        run(num_trials=1, seed=7, first=2, report=again.append)
        assert again[0].split(str(tmp_path))[0][:60] == lines[2][:60]


def test_every_damage_changes_a_file(tmp_path):
    path, phrases = tmp_path / "a", set()
    for number in range(60):
        path.write_bytes(b"content")
        phrase = damage.damage(path, random.Random(number))
        assert not path.exists() or path.read_bytes() != b"content"
        phrases.add(phrase.split()[-1] if path.exists() else "deleted")
    assert phrases == {"flipped", "bytes", "deleted"}


def test_an_unchecked_file_is_found(samples, monkeypatch):
    """As before files had checksums."""
    monkeypatch.setattr(checksums, "_digest_json", lambda content: "")
    lines = []
    counts = runner.run_kinds(
        {"leakage": KINDS["leakage"]}, samples, num_trials=400, report=lines.append
    )
    assert counts["leakage_silent"] == len(lines) > 0
    assert "leakage.json" in lines[0]


def test_the_command_writes_flat_counts(tmp_path, monkeypatch, capsys):
    path = tmp_path / "counts.json"
    words = ["--only=totals", "--only=oasis", "--trials=4", f"--json={path}"]
    __main__.main(words)
    counts = json.loads(path.read_text())
    assert counts["totals_tried"] == counts["oasis_tried"] == 4
    assert len(counts) == 12
    assert "seed 0, first trial 0" in capsys.readouterr().out
    monkeypatch.setattr(__main__, "KINDS", {"note": type("N", (Note,), {"read": fail})})
    with pytest.raises(SystemExit, match="2 trials failed"):
        __main__.main(["--trials=2"])
