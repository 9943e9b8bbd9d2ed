"""Two processes that write one output: one of them is refused, and no row is wrong."""

import pathlib
import subprocess
import sys

from helpers import shrunk
import numpy as np
import pytest

import deeprank_jax
from deeprank_jax.inference import artifact, embedding_table
from deeprank_jax.inference.index import Index

ROOT = pathlib.Path(__file__).parents[2]
ROUNDS = 12
WRITER = """
import sys
import deeprank_jax
from deeprank_jax import errors
from deeprank_jax.inference import embedding_table, index
from deeprank_jax.inference.sources import open_source
embedding_table._PART_SIZE = 8
model, folder = deeprank_jax.load(sys.argv[1]), sys.argv[2]
def embed(out):
    embedding_table.embed_to_file(model, open_source(folder), out)
write = {"embed": embed, "index": lambda out: index.index_images(out, model, folder)}
print("ready", flush=True)
for line in sys.stdin:
    kind, out = line.split()
    try:
        write[kind](out)
        print("wrote", flush=True)
    except errors.UserError as error:
        print(error, flush=True)
"""


class Writer:
    """A process that embeds or indexes a folder of its own."""

    def __init__(self, model, folder):
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(model), str(folder)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def begin(self, kind, out):
        self.process.stdin.write(f"{kind} {out}\n")
        self.process.stdin.flush()

    def read(self):
        return self.process.stdout.readline().rstrip()


@pytest.fixture(scope="module")
def writers(exported, tmp_path_factory):
    """Returns two writers, whose images have the same names and other contents."""
    started = []
    for i in range(2):
        folder = tmp_path_factory.mktemp("images") / "photos"
        shrunk.write_images(folder, num_classes=4, num_images=6)
        if i:
            paths = sorted(folder.rglob("*.png"))
            contents = [path.read_bytes() for path in paths]
            for path, content in zip(paths, reversed(contents), strict=True):
                path.write_bytes(content)
        started.append(Writer(exported, folder))
    assert [writer.read() for writer in started] == ["ready"] * 2
    yield started
    for writer in started:
        writer.process.stdin.close()
        writer.process.wait()
        writer.process.stdout.close()


def write_at_once(writers, kind, out):
    for writer in writers:
        writer.begin(kind, out)
    answers = [writer.read() for writer in writers]
    assert "wrote" in answers
    for answer in answers:
        assert answer == "wrote" or "is writing" in answer, answer
        assert answer == "wrote" or "wait until it has ended" in answer
    return answers


def test_two_tables_at_once(writers, exported, tmp_path):
    model, num_refused = deeprank_jax.load(exported), 0
    expected = {
        writer.folder: model.embed(sorted(map(str, writer.folder.rglob("*.png"))))
        for writer in writers
    }
    for number in range(ROUNDS):
        out = tmp_path / f"{number}.parquet"
        answers = write_at_once(writers, "embed", out)
        num_refused += answers.count("wrote") == 1
        paths, _, embeddings, _ = embedding_table.read_table(out)
        folder = pathlib.Path(paths[0]).parents[1]
        assert paths == sorted(map(str, folder.rglob("*.png")))
        np.testing.assert_allclose(embeddings, expected[folder], atol=1e-6)
        if answers.count("wrote") == 1:
            assert folder == writers[answers.index("wrote")].folder
    assert num_refused
    assert {p.suffix for p in tmp_path.iterdir()} == {".parquet"}


def test_two_indices_at_once(writers, exported, tmp_path):
    model, num_refused = deeprank_jax.load(exported), 0
    for number in range(ROUNDS):
        out = tmp_path / str(number)
        answers = write_at_once(writers, "index", out)
        num_refused += answers.count("wrote") == 1
        index = Index.open(out, model)
        paths = index.paths()
        assert len(paths) == len(set(paths)) == 24 * answers.count("wrote")
        for path in paths[::7]:
            result = index.search(path, k=1, include_query=True)
            assert result.hits[0].distance < 1e-9
        assert not list(out.glob(".*"))
    assert num_refused


def test_two_exports_at_once(tmp_path):
    out = tmp_path / "model"
    with artifact.writing(out) as folder:
        (folder / "weights").write_text("whole")
        with (
            pytest.raises(deeprank_jax.errors.UserError, match="is writing"),
            artifact.writing(out),
        ):
            pass
    assert {path.name for path in tmp_path.iterdir()} == {"model"}
    assert (out / "weights").read_text() == "whole"
    with pytest.raises(deeprank_jax.errors.UserError, match="exists already"):
        artifact.writing(out).__enter__()
