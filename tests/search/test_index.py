"""An index against a dictionary and a loop; every error; disks that fill up."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from deeprank_jax.errors import ArtifactError, DataError
from deeprank_jax.search.index import VectorIndex

DIM = 3
PAGE = 4096


def create(path, **options):
    return VectorIndex.create(path, **dict(dim=DIM, model_fingerprint="m") | options)


def rows(num, seed=0):
    # Whole numbers, so that there are ties to break.
    return np.random.default_rng(seed).integers(1, 4, (num, DIM)).astype(np.float32)


def expected(model, query, k, metric, labels=None):
    """The definition: measure everything that is there, sort by distance."""
    found = []
    for order, (name, (row, label)) in enumerate(model.items()):
        if labels is None or label in labels:
            if metric == "cosine":
                cosine = query @ row / np.linalg.norm(query) / np.linalg.norm(row)
                found.append((1 - cosine, order, name, label))
            else:
                found.append((np.sum((query - row) ** 2), order, name, label))
    found = sorted(found)[:k]
    return found + [(np.inf, -1, None, "")] * (k - len(found))


def assert_finds(index, model, queries, k, labels=None):
    found = index.search(queries, k, labels=labels)
    assert found.distances.shape == (len(queries), k)
    assert found.distances.dtype == np.float32
    for i, query in enumerate(queries.astype(np.float64)):
        answer = expected(model, query, k, index.metric, labels)
        distances = [distance for distance, *_ in answer]
        np.testing.assert_allclose(found.distances[i], distances, atol=1e-6)
        if index.metric != "cosine":  # There, rounding decides between equals.
            assert found.ids[i] == [name for _, _, name, _ in answer]
            assert found.labels[i] == [label for *_, label in answer]


# The steps that an index is taken through; numbers are made ids and rows.
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.lists(st.integers(0, 30), max_size=12)),
        st.tuples(st.just("delete"), st.lists(st.integers(0, 30), max_size=4)),
        st.tuples(st.just("reopen"), st.none()),
        st.tuples(st.just("search"), st.sampled_from([None, "a", "b"])),
    ),
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(STEPS, st.sampled_from(["squared_euclidean", "cosine"]))
def test_an_index_is_a_dictionary_on_disk(steps, metric):
    with tempfile.TemporaryDirectory() as folder:
        path, model = pathlib.Path(folder) / "x", {}
        index = create(path, metric=metric)
        for seed, (step, given_) in enumerate([*steps, ("reopen", None)]):
            if step == "reopen":
                index.close()
                index = VectorIndex.open(path, writable=True)
            elif step == "search" and model:
                labels = None if given_ is None else [given_]
                assert_finds(index, model, rows(2, seed), 3, labels)
            elif step == "add":
                ids = [f"{i}é.png" for i in dict.fromkeys(given_)]
                embeddings = rows(len(ids), seed)
                labels = ["ab"[seed % 2]] * len(ids)
                if set(ids) & model.keys():
                    with pytest.raises(DataError, match="already"):
                        index.add(ids, embeddings, labels)
                else:
                    index.add(ids, embeddings, labels)
                    added = zip(embeddings, labels, strict=True)
                    model |= dict(zip(ids, added, strict=True))
            elif step == "delete":
                ids = [f"{i}é.png" for i in given_]
                if set(ids) <= model.keys():
                    index.delete(ids)
                    model = {k: v for k, v in model.items() if k not in ids}
                else:
                    with pytest.raises(DataError, match="are not in"):
                        index.delete(ids)
            assert index.ids() == list(model)
            assert len(index) == len(model)
        index.close()


@pytest.mark.parametrize("metric", ["squared_euclidean", "cosine"])
def test_a_search_finds_the_nearest(tmp_path, metric):
    model = {}
    with create(tmp_path / "x", metric=metric) as index:
        for start in (0, 30):
            ids, labels = [str(start + i) for i in range(30)], ["a", "b", "c"] * 10
            embeddings = rows(30, start)
            index.add(ids, embeddings, labels)
            model |= dict(zip(ids, zip(embeddings, labels, strict=True), strict=True))
    for mode in (False, True):
        with VectorIndex.open(tmp_path / "x", writable=mode) as index:
            assert_finds(index, model, rows(5, 7), 4)
            assert_finds(index, model, rows(5, 7), 4, "a")
            assert_finds(index, model, rows(5, 7), 25, ["a", "c"])
            assert_finds(index, model, rows(5, 7), 25, ["b"])
            assert_finds(index, model, rows(5, 7), 3, ["not there"])
            assert_finds(index, model, rows(5, 7), 70)


def test_cosine_ignores_length(tmp_path):
    with create(tmp_path / "x", metric="cosine") as index:
        index.add(["long", "turned"], np.array([[100.0, 0, 0], [0.0, 1, 0]]))
        found = index.search(np.array([[0.1, 0, 0]]), 2)
    assert found.ids == [["long", "turned"]]
    np.testing.assert_allclose(found.distances, [[0, 1]], atol=1e-6)


def test_rows_without_labels_have_empty_ones(tmp_path):
    with create(tmp_path / "x") as index:
        index.add(["0"], rows(1))
        index.add(["1", "2"], rows(2), [None, "a"])
        assert sorted(index.search(rows(1), 3).labels[0]) == ["", "", "a"]


def test_what_is_added_between_searches_is_found(tmp_path):
    with create(tmp_path / "x") as index:
        index.add(["0"], np.zeros((1, DIM)))
        assert index.search(np.ones((1, DIM)), 1).ids == [["0"]]
        index.add(["1"], np.ones((1, DIM)))
        assert index.search(np.ones((1, DIM)), 1).ids == [["1"]]
        index.delete(["1"])
        assert index.search(np.ones((1, DIM)), 1).ids == [["0"]]


def test_what_was_deleted_is_gone_and_can_be_added_again(tmp_path):
    with create(tmp_path / "x") as index:
        index.add(["0", "1", "2"], np.eye(DIM), ["a", "a", "b"])
        index.delete(["0"])
        with pytest.raises(DataError, match=r"1 of 2 ids are not in .* first is '0'"):
            index.delete(["1", "0"])
        assert index.search(np.eye(DIM)[:1], 2, labels="a").ids == [["1", None]]
        index.add(["0"], np.eye(DIM)[1:2], ["b"])
        assert index.ids() == ["1", "2", "0"]
        assert index.search(np.eye(DIM)[1:2], 3).ids == [["1", "0", "2"]]
        assert index.search(np.eye(DIM)[1:2], 3, labels="b").ids == [["0", "2", None]]


def test_a_reader_sees_what_was_there_when_it_opened(tmp_path):
    with create(tmp_path / "x") as writer:
        writer.add(["0", "1"], rows(2))
        reader = VectorIndex.open(tmp_path / "x")
        writer.delete(["0"])
        writer.add(["2"], rows(1))
        assert reader.ids() == ["0", "1"]
        assert set(reader.search(rows(1), 2).ids[0]) == {"0", "1"}
        assert VectorIndex.open(tmp_path / "x").ids() == ["1", "2"]


_LIGHT = """
import sys
import numpy as np
from deeprank_jax.search.index import VectorIndex
with VectorIndex.create(sys.argv[1], dim=3, model_fingerprint="m") as index:
    index.add(["a", "b"], np.ones((2, 3)))
    index.delete(["a"])
    assert index.ids() == ["b"]
assert not {"jax", "faiss", "pyarrow"} & sys.modules.keys()
"""


def test_reading_and_adding_load_no_more_than_they_need(tmp_path):
    subprocess.run([sys.executable, "-c", _LIGHT, tmp_path / "x"], check=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(metric="dot"), "must be one of squared_euclidean, cosine"),
        (dict(kind="ivf"), "must be one of auto, exact, hnsw"),
        (dict(dim=0), "at least 1"),
    ],
)
def test_an_index_that_cannot_be_is_refused(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        create(tmp_path / "x", **change)
    assert not (tmp_path / "x").exists()


def test_a_folder_that_is_taken_is_refused(tmp_path):
    create(tmp_path / "x").close()
    with pytest.raises(ArtifactError, match="is an index already"):
        create(tmp_path / "x")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.png").touch()
    with pytest.raises(ArtifactError, match="is not empty"):
        create(tmp_path / "photos")
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match="is a file; name a new folder"):
        create(tmp_path / "file")


def test_what_is_no_index_of_this_model_is_refused(tmp_path):
    create(tmp_path / "x").close()
    assert VectorIndex.open(tmp_path / "x", model_fingerprint="m").metric
    with pytest.raises(ArtifactError, match="of the model m, not of other"):
        VectorIndex.open(tmp_path / "x", model_fingerprint="other", writable=True)
    VectorIndex.open(tmp_path / "x", writable=True).close()  # The lock was given back.
    for path in (tmp_path, tmp_path / "none", tmp_path / "x" / "index.json"):
        with pytest.raises(ArtifactError, match="is not an index"):
            VectorIndex.open(path)


def test_one_process_writes_at_a_time(tmp_path):
    with create(tmp_path / "x"):
        with pytest.raises(ArtifactError, match="This process is writing"):
            VectorIndex.open(tmp_path / "x", writable=True)
        reader = VectorIndex.open(tmp_path / "x")
    with pytest.raises(ArtifactError, match="open for reading; to add"):
        reader.add(["1"], rows(1))
    with pytest.raises(ArtifactError, match="open for reading; to delete"):
        reader.delete(["1"])
    VectorIndex.open(tmp_path / "x", writable=True).close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((["b"], [[1.0, 2.0]]), r"are \[1, 2\], .* give \[N, 3\]"),
        ((["b"], [1.0, 2.0, 3.0]), r"are \[3\]"),
        (
            (["b", "c"], [[1.0] * 3, [0, np.nan, 0]]),
            "1 of 2 embeddings .* row 1, which",
        ),
        ((["b"], [[np.inf, 0, 0]]), "not finite"),
        ((["b"], [[1e19, 0, 0]]), "too large to be squared"),
        ((["b"], [[0.0, 0, 0]]), "no cosine"),
        ((["b", "b"], [[1.0] * 3] * 2), "'b' is given twice"),
        ((["b", "a"], [[1.0] * 3] * 2), "1 of 2 ids are in .* the first is 'a'"),
        ((["b"], [[1.0] * 3] * 2), "1 ids, 2 embeddings and 1 labels"),
        ((["b"], [[1.0] * 3], ["x", "y"]), "1 ids, 1 embeddings and 2 labels"),
    ],
)
def test_rows_that_cannot_be_added_are_refused(tmp_path, arguments, message):
    with create(tmp_path / "x", metric="cosine") as index:
        index.add(["a"], rows(1))
        with pytest.raises(DataError, match=message):
            index.add(*arguments)
        assert index.ids() == ["a"]
        index.add([], np.empty((0, DIM)))
        index.delete([])
        assert len(list((tmp_path / "x").glob("batch-*"))) == 2


@pytest.mark.parametrize(
    ("queries", "k", "message"),
    [
        (np.ones((1, 4)), 1, r"queries are \[1, 4\]"),
        (np.ones(3), 1, r"queries are \[3\]"),
        (np.full((2, 3), np.nan), 1, "2 of 2 queries cannot be used"),
        (np.ones((1, 3)), 0, "k must be at least 1, got 0"),
    ],
)
def test_a_search_that_cannot_be_is_refused(tmp_path, queries, k, message):
    with create(tmp_path / "x") as index:
        with pytest.raises(DataError, match="is empty"):
            index.search(np.ones((1, 3)), 1)
        index.add(["a"], rows(1))
        assert index.search(np.empty((0, 3)), 2).ids == []
        with pytest.raises(DataError, match=message):
            index.search(queries, k)


@pytest.mark.parametrize("suffix", [".npy", ".json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_batch_is_told(tmp_path, suffix, damage):
    with create(tmp_path / "x") as index:
        index.add(["a", "b"], rows(2))
    path = tmp_path / "x" / f"batch-00000000{suffix}"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(content if damage == "flip" else content[:-3])
    with pytest.raises(ArtifactError, match=rf"{path.name} is damaged.*backup"):
        VectorIndex.open(tmp_path / "x").search(rows(1), 1)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 2}'])
def test_a_damaged_list_is_told(tmp_path, text):
    create(tmp_path / "x").close()
    (tmp_path / "x" / "index.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"index\.json (is damaged|has format 2)"):
        VectorIndex.open(tmp_path / "x")


def test_the_next_writer_removes_what_is_not_committed(tmp_path):
    path = tmp_path / "x"
    with create(path) as index:
        index.add(["a"], rows(1))
    left = [".batch-00000001.npy.tmp", "batch-00000001.npy", ".index.json.tmp"]
    for name in [*left, "model_path.txt", "batch-1.npy"]:
        (path / name).write_text("x")
    before = {file.name for file in path.iterdir()}
    VectorIndex.open(path)
    assert {file.name for file in path.iterdir()} == before
    VectorIndex.open(path, writable=True).close()
    assert {file.name for file in path.iterdir()} == before - set(left)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 256 KiB."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", tmp_path]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("Only root can mount a small disk.")
    yield tmp_path
    subprocess.run(["umount", "--lazy", tmp_path], check=True)


def fill(path, pages_left):
    """Writes a file that leaves room for no more than so many pages."""
    with path.open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while True:
                file.write(bytes(PAGE))
        file.truncate(file.tell() - pages_left * PAGE)


def test_a_disk_that_fills_up_leaves_the_index_as_it_was(small_disk):
    path, filler = small_disk / "x", small_disk / "filler"
    with create(path) as index:
        index.add(["a"], rows(1))
        with pytest.raises(
            ArtifactError, match="No space left on device; it is unchanged"
        ):
            index.add([str(i) for i in range(40_000)], rows(40_000))
        assert not list(path.glob(".*.tmp"))
        # There is room for nothing, for the embeddings, and for their names, too.
        for pages_left in range(3):
            fill(filler, pages_left)
            with pytest.raises(ArtifactError, match="No space left on device"):
                index.add(["b"], rows(1))
            assert index.ids() == VectorIndex.open(path).ids() == ["a"]
            filler.unlink()
        fill(filler, 3)  # Also for the list.
        index.add(["b"], rows(1))
        with pytest.raises(ArtifactError, match="No space left on device"):
            index.delete(["a"])
        filler.unlink()
        assert index.ids() == VectorIndex.open(path).ids() == ["a", "b"]
    kept = {".lock", "index.json"}
    assert len({file.name for file in path.iterdir()} - kept) == 4


@pytest.mark.parametrize("fails_at", range(12))
def test_a_commit_is_whole_wherever_it_fails(tmp_path, monkeypatch, fails_at):
    """Each call by which a file comes to be fails once, before and after it."""
    path = tmp_path / "x"
    index = create(path)
    index.add(["a"], rows(1))
    calls = 0

    def failing(call):
        def wrapped(*args):
            nonlocal calls
            calls += 1
            if calls == fails_at + 1:
                raise OSError(28, "No space left on device")
            return call(*args)

        return wrapped

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing(os.fsync))
        patch.setattr(pathlib.Path, "replace", failing(pathlib.Path.replace))
        try:
            index.add(["b", "c"], rows(2))
            whole = True
        except ArtifactError:
            whole = index.ids() == ["a", "b", "c"]
    assert index.ids() == (["a", "b", "c"] if whole else ["a"])
    assert VectorIndex.open(path).ids() == index.ids()
    index.add(["d"], rows(1))
    assert VectorIndex.open(path).ids() == index.ids()
    assert VectorIndex.open(path).search(rows(1), 1).ids
    index.close()
    with VectorIndex.open(path, writable=True) as again:
        files = {file.name for file in path.iterdir()}
        listed = 2 * len(again._store.manifest.batches)
        assert len(files - {"index.json", ".lock"}) == listed


def flips(path):
    """Flips a bit of each byte of a file in turn, and puts it right in the end."""
    whole = path.read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 7
        path.write_bytes(changed)
        yield place
    path.write_bytes(whole)


def test_no_flipped_bit_of_the_list_deletes_or_changes_rows(tmp_path):
    folder = tmp_path / "x"
    with create(folder) as index:
        index.add(["a", "b"], rows(2), ["l", "m"])
        index.delete(["a"])
        index.add(["c"], rows(1))
    before = {path.name for path in folder.iterdir()}
    manifest = VectorIndex.open(folder)._store.manifest
    num_refused = 0
    for where in flips(folder / "index.json"):
        try:
            with VectorIndex.open(folder, writable=True) as index:
                assert index._store.manifest == manifest, where
        except ArtifactError as error:
            num_refused += "index.json" in str(error)
        assert {path.name for path in folder.iterdir()} == before, where
    assert num_refused > 500


def test_a_list_of_an_earlier_version_has_no_checksum(tmp_path):
    create(tmp_path / "x").close()
    path = tmp_path / "x" / "index.json"
    content = json.loads(path.read_text())
    del content["sha256"]
    path.write_text(json.dumps(content))
    assert len(VectorIndex.open(tmp_path / "x")) == 0


@pytest.mark.parametrize("metric", ["squared_euclidean", "cosine"])
def test_vectors_are_those_that_were_added(tmp_path, metric):
    rows = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    path = tmp_path / "index"
    with VectorIndex.create(
        path, dim=3, model_fingerprint="model", metric=metric
    ) as index:
        index.add(list("abcd"), rows[:4])
        index.add(list("efg"), rows[4:])
        index.delete(["b"])
    index = VectorIndex.open(path)
    vectors = index.vectors(["g", "a", "e", "a"])
    np.testing.assert_array_equal(vectors, rows[[6, 0, 4, 0]])
    assert index.vectors([]).shape == (0, 3)
