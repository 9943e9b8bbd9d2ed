"""Indexes from elsewhere are refused in a sentence, before they can do harm."""

import hashlib
import io
import json
import os
import struct

import faiss
import numpy as np
import pytest

from deeprank_jax.errors import ArtifactError
from deeprank_jax.inference import index_origins
from deeprank_jax.search import store
from deeprank_jax.search.graph_check import check_graph
from deeprank_jax.search.index import VectorIndex

ROWS = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)


def npy(array, shape=None):
    file = io.BytesIO()
    np.save(file, array)
    if shape is None:
        return file.getvalue()
    header = io.BytesIO()
    fields = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, fields)
    return header.getvalue() + b"x" * 10


def names(ids, labels=None):
    content = {"ids": ids, "labels": [""] * len(ids) if labels is None else labels}
    return json.dumps(content).encode()


IDS = [f"/photos/{i}.jpg" for i in range(6)]


def write_index(path, *, rows=None, ids=None, deleted=None, entry=None, **changes):
    """Writes an index with right checksums, whatever its files hold."""
    path.mkdir()
    parts = {
        ".npy": npy(ROWS) if rows is None else rows,
        ".json": names(IDS) if ids is None else ids,
    }
    sums = {}
    for suffix, content in parts.items():
        (path / f"batch-00000000{suffix}").write_bytes(content)
        sums[suffix] = hashlib.sha256(content).hexdigest()
    batch = {"name": "batch-00000000", "num_rows": 6, "sha256": sums, **(entry or {})}
    deletions = []
    if deleted is not None:
        content = npy(np.array(deleted))
        (path / "deleted-00000001.npy").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        deletions = [
            {"name": "deleted-00000001", "num_rows": len(deleted),
             "sha256": {".npy": digest}},
        ]  # fmt: skip
    manifest = {
        "dim": 3, "model_fingerprint": "m", "metric": "squared_euclidean",
        "asked_kind": "exact", "kind": "exact", "next_number": 2, "batches": [batch],
        "deletions": deletions, "format": 1, **changes,
    }  # fmt: skip
    (path / store.MANIFEST).write_text(json.dumps(manifest))
    return path


def refuse(path, match):
    def use():
        index = VectorIndex.open(path)
        index.ids()
        index.search(ROWS[:1], 2)

    with pytest.raises(ArtifactError, match=match):
        use()


def test_the_index_is_used_as_it_is(tmp_path):
    index = VectorIndex.open(write_index(tmp_path / "index", deleted=[0]))
    assert index.search(ROWS[1:2], 1).ids == [["/photos/1.jpg"]]
    assert len(index) == 5


NO_SUMS = {"sha256": {}}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        *[({"dim": x}, "dim is .* expected a whole number")
          for x in (0, -1, 10**9, "a", 3.0, None, True)],
        *[({"metric": x}, "metric is") for x in ("manhattan", None, ["cosine"])],
        ({"kind": "auto"}, "kind is 'auto'"), ({"asked_kind": 3}, "asked_kind is 3"),
        ({"model_fingerprint": 7}, "model_fingerprint is no text"),
        ({"next_number": -1}, "next_number is -1"), ({"batches": 5}, "cannot be read"),
        ({"batches": [5]}, "cannot be read"), ({"format": 7}, "has format 7"),
        ({"more": 1}, "cannot be read"),
        *[({"entry": {"name": x}}, "which is no batch") for x in (
            "../batch-00000000", "/etc/passwd", "batch-00000000/../x", 5, "",
            "deleted-00000000", "batch-00000000\n",
        )],
        *[({"entry": {"num_rows": x}}, "num_rows is") for x in (-1, "6", 1e3)],
        ({"entry": {"num_rows": 7}}, "are not a list of 7"),
        ({"entry": NO_SUMS}, "has no checksums of its files"),
        ({"entry": {"sha256": {".npy": "x", ".json": "y"}}}, "that are none"),
        ({"rows": npy(ROWS[:5])}, r"of the shape \(5, 3\), not float32 of \(6, 3\)"),
        ({"rows": npy(ROWS[:, :2])}, "of the shape"),
        ({"rows": npy(ROWS.astype(np.float64))}, "holds float64"),
        ({"rows": npy(ROWS * np.nan)}, "rows that are not finite"),
        ({"rows": npy(np.where(ROWS == ROWS[3, 1], np.inf, ROWS).astype("f4"))},
         "rows that are not finite"),
        ({"rows": npy(None, (2**45,))}, "describes 140,737,488,355,328 bytes"),
        ({"rows": npy(np.array([{}], object))}, "Python objects"),
        ({"rows": b"no array"}, "batch-00000000.npy is damaged"),
        ({"ids": names(IDS[:5])}, "its ids are not a list of 6"),
        ({"ids": names(IDS, ["x"])}, "its labels are not a list of 6"),
        ({"ids": names([1, 2, 3, 4, 5, 6])}, "its ids are not all texts"),
        ({"ids": b"[" * 10**5}, "nested too deeply"), ({"ids": b"[]"}, "its ids"),
        ({"deleted": [6]}, "deletes rows that it does not have"),
        ({"deleted": [-1]}, "deletes rows"), ({"deleted": [1, 1]}, "deletes rows"),
        ({"deleted": list(range(7))}, "deletes more rows than it has"),
        ({"metric": "cosine", "rows": npy(ROWS * 0)}, "rows of zeros"),
    ],
)  # fmt: skip
def test_hostile_indexes_are_refused(tmp_path, changes, match):
    refuse(write_index(tmp_path / "index", **changes), match)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        (store.MANIFEST, "index.json is damaged: it cannot be read .a named pipe"),
        ("batch-00000000.npy", "npy is damaged: a named pipe, not a file"),
        ("batch-00000000.json", "json is damaged: a named pipe, not a file"),
    ],
)
def test_only_files_are_read(tmp_path, name, match):
    path = write_index(tmp_path / "index")
    (path / name).unlink()
    os.mkfifo(path / name)
    refuse(path, match)
    (path / name).rename(tmp_path / "elsewhere")
    (path / name).symlink_to(tmp_path / "elsewhere")
    refuse(path, match)


def test_an_index_may_consist_of_links_to_files_with_its_checksums(tmp_path):
    path = write_index(tmp_path / "index")
    for i, file in enumerate(sorted(path.iterdir())):
        file.rename(tmp_path / f"{i}")
        file.symlink_to(tmp_path / f"{i}")
    assert VectorIndex.open(path).search(ROWS[2:3], 1).ids == [["/photos/2.jpg"]]
    for name in ("batch-00000000.npy", "batch-00000000.json"):
        content = (path / name).read_bytes()
        (path / name).write_bytes(content + b" ")
        refuse(path, f"{name} is damaged: its checksum differs")
        (path / name).write_bytes(content)


def graph_of(rows):
    graph = faiss.IndexHNSWFlat(rows.shape[1], 8)
    graph.add(rows)
    return graph


@pytest.fixture(scope="module")
def graph():
    rows = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    return bytes(faiss.serialize_index(graph_of(rows)))


def test_a_graph_of_faiss_passes(graph):
    file = io.BytesIO(b"head" + graph)
    file.seek(4)
    check_graph(file, 4)
    assert file.tell() == 4
    check_graph(io.BytesIO(faiss.serialize_index(graph_of(np.zeros((0, 4), "f4")))), 4)
    with pytest.raises(ValueError, match="of other rows"):
        check_graph(io.BytesIO(graph), 5)


def test_a_graph_that_is_cut_off_or_of_another_kind_is_refused(graph):
    others = [graph[:n] for n in range(0, len(graph), 97)]
    flat = bytes(faiss.serialize_index(faiss.IndexFlatL2(4)))
    for content in (*others, flat, graph + b"x", b"IxPT" + graph[4:]):
        with pytest.raises(ValueError, match=r"it|its"):
            check_graph(io.BytesIO(content), 4)


def test_links_and_sizes_that_lead_out_of_a_graph_are_refused(graph):
    neighbors = np.frombuffer(graph, "<i4", 8, graph.index(b"IxF2") - 20 - 32)
    assert ((neighbors >= -1) & (neighbors < 300)).all()
    header = 4 + struct.calcsize("<iqqq?i")
    for place, value in [
        (graph.index(b"IxF2") - 24, 300),  # A neighbour.
        (graph.index(b"IxF2") - 24, -2),
        (graph.index(b"IxF2") - 20, 300),  # The first row of a search.
        (graph.index(b"IxF2") - 16, 99),  # The number of levels.
        (header, 2**31 - 1),  # The length of a table.
        (header + 4, 2**30),
    ]:
        content = bytearray(graph)
        struct.pack_into("<i", content, place, value)
        with pytest.raises(ValueError, match=r"tables do not fit|is cut off"):
            check_graph(io.BytesIO(content), 4)


def test_pictures_are_read_below_the_indexed_folders_only(tmp_path):
    photos, secret = tmp_path / "photos", tmp_path / "secret.jpg"
    photos.mkdir()
    secret.write_bytes(b"x")
    (photos / "one.jpg").write_bytes(b"x")
    (photos / "link.jpg").symlink_to(secret)
    index_origins.write_origins(tmp_path, model="m", source=str(photos))
    read = index_origins.read_origins(tmp_path).create_reader(None)
    assert read(str(photos / "one.jpg")) == str(photos / "one.jpg")
    for name in (secret, photos / "link.jpg", photos / ".." / "secret.jpg", "x.jpg"):
        with pytest.raises(ArtifactError, match="not below the folders"):
            read(str(name))
    index_origins.write_origins(tmp_path, model="m", paths=[str(secret)])
    read = index_origins.read_origins(tmp_path).create_reader(None)
    assert read(str(secret)) == str(secret)


def test_a_list_keeps_few_roots_and_never_all_files(tmp_path):
    paths = [f"/data/{i}/deep/{i}.jpg" for i in range(100)]
    index_origins.write_origins(tmp_path, model="m", paths=paths)
    origins = index_origins.read_origins(tmp_path)
    assert origins.roots == ["/data"]
    content = {"model": "m", "sources": {"/": {}}, "roots": ["/"]}
    (tmp_path / "origins.json").write_text(json.dumps(content))
    read = index_origins.read_origins(tmp_path).create_reader(None)
    with pytest.raises(ArtifactError, match="not below the folders"):
        read("/data/1/deep/1.jpg")


@pytest.mark.parametrize(
    "content",
    ["[" * 10**5, "[]", "{}", '{"model": 7, "sources": {}}',
     '{"model": "m", "sources": []}', '{"model": "m", "sources": {"a": {"like": "x"}}}',
     '{"model": "m", "sources": {"a": {"data_dir": 1}}}',
     '{"model": "m", "sources": {}, "roots": "/"}'],
)  # fmt: skip
def test_origins_have_a_schema(tmp_path, content):
    (tmp_path / "origins.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"origins\.json cannot be read"):
        index_origins.read_origins(tmp_path)


def test_a_lock_is_a_file(tmp_path):
    path = write_index(tmp_path / "index")
    os.mkfifo(path / ".lock")
    with pytest.raises(ArtifactError, match=r"/\.lock cannot be written .*: delete it"):
        VectorIndex.open(path, writable=True)
