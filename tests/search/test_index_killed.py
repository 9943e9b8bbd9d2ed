"""A writer that is killed loses nothing that it said was committed."""

import pathlib
import random
import subprocess
import sys
import time

import numpy as np
import pytest

from deeprank_jax.search.index import VectorIndex

_BATCH, _DIM = 3, 40

# Adds batches, and now and then deletes the second row of the one before; says so.
_WRITER = f"""
import sys
import numpy as np
from deeprank_jax.search.index import VectorIndex

def rows(number):
    return np.full(({_BATCH}, {_DIM}), number) + np.arange({_BATCH})[:, None] / 8

with VectorIndex.open(sys.argv[1], writable=True) as index:
    first = number = int(sys.argv[2])
    while True:
        index.add([f"{{number}}/{{i}}" for i in range({_BATCH})], rows(number))
        print("added", number, flush=True)
        if number % 4 == 1 and number > first:
            index.delete([f"{{number - 1}}/1"])
            print("deleted", number - 1, flush=True)
        number += 1
"""


@pytest.mark.parametrize("num_kills", [15, pytest.param(50, marks=pytest.mark.full)])
def test_writers_are_killed(tmp_path, num_kills):
    path, told, rng = tmp_path / "x", [], random.Random(0)
    VectorIndex.create(path, dim=_DIM, model_fingerprint="m").close()
    num_cut_off = number = 0
    for _ in range(num_kills):
        command = [sys.executable, "-c", _WRITER, str(path), str(number)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            told.append(writer.stdout.readline())
            time.sleep(rng.uniform(0, 0.1))
            writer.kill()
            told += writer.stdout.read().splitlines()
        number = check(path, [line.split() for line in told])
        num_cut_off += bool(uncommitted(path))
    assert number > 1.5 * num_kills
    assert num_cut_off  # A kill came in the midst of a commit.
    with VectorIndex.open(path, writable=True):
        assert not uncommitted(path)


def uncommitted(path: pathlib.Path) -> set[str]:
    """Returns the files that the index does not need."""
    manifest = VectorIndex.open(path)._store.manifest
    listed = {entry.name for entry in (*manifest.batches, *manifest.deletions)}
    return {file.stem for file in path.iterdir()} - {".lock", "index"} - listed


def check(path: pathlib.Path, told: list[list[str]]) -> int:
    """Checks that whole batches are there; returns the number of the next."""
    index = VectorIndex.open(path)
    names, _ = index._store.names()
    num, rest = divmod(len(names), _BATCH)
    assert rest == 0
    assert names == [f"{i}/{j}" for i in range(num) for j in range(_BATCH)]
    values = np.concatenate([np.empty((0, _DIM)), *index._store.embeddings()])
    expected = np.repeat(np.arange(num), _BATCH) + np.tile(np.arange(_BATCH), num) / 8
    np.testing.assert_array_equal(values, np.repeat(expected[:, None], _DIM, axis=1))
    added = [int(number) for verb, number in told if verb == "added"]
    deleted = {f"{number}/1" for verb, number in told if verb == "deleted"}
    # One more of each may have been committed and not told.
    assert added == sorted(added)
    assert num >= max(added, default=-1) + 1
    gone = set(names) - set(index.ids())
    assert deleted <= gone
    assert all(name.endswith("/1") and int(name[:-2]) % 4 == 0 for name in gone)
    return num
