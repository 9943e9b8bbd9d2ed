"""The graph: what it finds, and what becomes of its file."""

import json
import sys

import numpy as np
import pytest

from deeprank_jax.errors import MissingExtraError
from deeprank_jax.search import hnsw, store
from deeprank_jax.search import index as index_lib
from deeprank_jax.search.index import VectorIndex

DIM, NUM = 16, 600


def rows(num, seed=0):
    return np.random.default_rng(seed).normal(size=(num, DIM)).astype(np.float32)


def create(path, **options):
    fixed = dict(dim=DIM, model_fingerprint="m", kind="hnsw")
    return VectorIndex.create(path, **fixed | options)


@pytest.fixture(params=["squared_euclidean", "cosine"])
def filled(tmp_path, request):
    """An index of two batches, and one that searches exactly what it holds."""
    pair = []
    for kind in ("hnsw", "exact"):
        with create(tmp_path / kind, kind=kind, metric=request.param) as index:
            for start in (0, NUM // 2):
                ids = [str(start + i) for i in range(NUM // 2)]
                labels = ["a" if i % 3 else "b" for i in range(NUM // 2)]
                index.add(ids, rows(NUM // 2, start), labels)
        pair.append(VectorIndex.open(tmp_path / kind, writable=True))
    yield pair
    for index in pair:
        index.close()


@pytest.fixture
def added(monkeypatch):
    """How many rows were added to graphs."""
    counts = []
    extend = hnsw.Graph.extend

    def counting(self, store, prepare):
        before = len(self.rows.nodes)
        extend(self, store, prepare)
        if len(self.rows.nodes) > before:
            counts.append(len(self.rows.nodes) - before)

    monkeypatch.setattr(hnsw.Graph, "extend", counting)
    return counts


def assert_alike(graph, exact, k=10, labels=None):
    found, wanted = (x.search(rows(40, 9), k, labels=labels) for x in (graph, exact))
    same = [
        len(set(one) & set(two) - {None})
        for one, two in zip(found.ids, wanted.ids, strict=True)
    ]
    num = min(k, sum(x is not None for x in wanted.ids[0]))
    assert np.mean(same) > 0.97 * num
    assert (np.diff(found.distances[:, :num], axis=1) >= 0).all()
    pairs = zip(found.ids, wanted.ids, strict=True)
    nearest = np.array([one[0] == two[0] for one, two in pairs])
    assert nearest.mean() > 0.9
    np.testing.assert_allclose(
        found.distances[nearest, 0], wanted.distances[nearest, 0], rtol=1e-4
    )
    assert labels is None or {x for row in found.labels for x in row} == {labels}


def test_the_graph_finds_nearly_all(filled, added):
    assert filled[0].kind == "hnsw"
    assert_alike(*filled)
    assert_alike(*filled)
    assert added == [NUM]


def copies_of_one():
    return np.concatenate([np.repeat(rows(1, 2), 800, axis=0), rows(800, 3)])


def copies_of_some():
    return np.repeat(rows(60, 2), 30, axis=0)


def tight_clusters(size):
    return np.repeat(rows(20, 2), size, axis=0) + 0.01 * rows(20 * size, 3)


SETS = {
    "distinct": rows(2000, 1),
    "copies of one": copies_of_one(),
    "copies of some": copies_of_some(),
    "tight clusters": tight_clusters(100),
    "tight and large clusters": tight_clusters(600),
}


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("order", ["sorted", "shuffled"])
def test_equal_and_nearly_equal_rows_do_not_hide_others(tmp_path, name, order):
    """Recall of the ten nearest, where rows as far as the tenth count."""
    gallery = SETS[name]
    if order == "shuffled":
        gallery = np.random.default_rng(0).permutation(gallery)
    ids = [str(i) for i in range(len(gallery))]
    queries = np.concatenate([rows(150, 9), gallery[::97][:50] + 0.01])
    distances = []
    for kind in ("hnsw", "exact"):
        with create(tmp_path / kind, kind=kind) as index:
            index.add(ids, gallery)
            neighbors = index.search(queries, 10)
        assert all(len(set(x)) == 10 for x in neighbors.ids)
        places = np.array(neighbors.ids).astype(int)
        direct = np.square(gallery[places] - queries[:, None]).sum(axis=2)
        np.testing.assert_allclose(neighbors.distances, direct, rtol=1e-3, atol=1e-4)
        distances.append(neighbors.distances)
    is_hit = distances[0] <= distances[1][:, -1:] * (1 + 1e-4)
    assert is_hit.mean() >= 0.95


def test_rows_of_equal_numbers_rank_in_the_order_of_adding(tmp_path):
    base = rows(3, 4)
    with create(tmp_path / "x") as index:
        for batch in range(3):
            ids = [f"{batch}{name}" for name in "abc"]
            # Equal to the rows of the first batch, but for the sign of a zero.
            signed = base.copy()
            signed[:, 0] = -0.0 if batch else 0.0
            index.add(ids, signed)
        assert index.search(signed[:1], 5).ids[0][:3] == ["0a", "1a", "2a"]
        assert index._graph.faiss_index.ntotal == 3
        index.delete(["1a"])
        assert index.search(signed[:1], 3).ids[0][:2] == ["0a", "2a"]
    again = VectorIndex.open(tmp_path / "x", writable=True)
    again.add(["3b"], signed[1:2])
    assert again.search(signed[1:2], 4).ids == [["0b", "1b", "2b", "3b"]]
    assert again._graph.faiss_index.ntotal == 3
    again.close()


def test_a_graph_that_misses_too_much_is_not_walked(
    tmp_path, monkeypatch, warnings_logged
):
    monkeypatch.setattr(hnsw.graph_recall, "WIDTHS", (1,))
    with create(tmp_path / "x") as index, create(tmp_path / "y", kind="exact") as exact:
        for each in (index, exact):
            each.add([str(i) for i in range(NUM)], rows(NUM))
        neighbors = index.search(rows(20, 9), 10)
        assert neighbors.ids == exact.search(rows(20, 9), 10).ids
    assert "searching exactly" in warnings_logged[0]
    reader = VectorIndex.open(tmp_path / "x")
    assert reader.search(rows(20, 9), 10).ids == neighbors.ids


@pytest.mark.parametrize(
    ("widths", "nodes"),
    [((10**6, 64), None), ((64, np.nan), None), ((64, 64), np.zeros(NUM, np.int32))],
)
def test_tables_of_a_graph_that_cannot_be_are_not_used(
    filled, added, warnings_logged, monkeypatch, widths, nodes
):
    """Whole by its checksum, and yet not one that was built here."""
    graph, exact = filled
    with monkeypatch.context() as patch:
        wrong = hnsw.graph_recall.SearchWidths(*widths)
        patch.setattr(hnsw.graph_recall, "measure_widths", lambda *_: wrong)
        if nodes is not None:
            add = hnsw.DistinctRows.add

            def wrongly(self, rows):
                new = add(self, rows)
                self.nodes = nodes[: len(self.nodes)]
                return new

            patch.setattr(hnsw.DistinctRows, "add", wrongly)
        graph.prepare()
    assert_alike(VectorIndex.open(graph._store.folder), exact)
    assert added == [NUM, NUM]
    assert "building it again" in warnings_logged[0]


def test_what_is_deleted_is_not_found(filled):
    gone = [str(i) for i in range(0, NUM, 2)]
    assert_alike(*filled)
    for index in filled:
        index.delete(gone)
    assert_alike(*filled)
    found = filled[0].search(rows(40, 9), 20)
    assert not {x for row in found.ids for x in row} & set(gone)
    for index in filled:  # So few are left that walking the graph would not reach them.
        index.delete([str(i) for i in range(1, NUM - 40, 2)])
    found, wanted = (index.search(rows(40, 9), 25) for index in filled)
    assert found.ids == wanted.ids


@pytest.mark.parametrize("limit", [0, 10**6])
def test_labels_are_kept_apart(filled, monkeypatch, limit):
    """By the graph where a label has many rows, else exactly."""
    monkeypatch.setattr(index_lib, "_AUTO_EXACT_ROWS", limit)
    assert_alike(*filled, labels="a")
    assert_alike(*filled, labels="b")
    assert (filled[0]._graph is None) == bool(limit)
    found = filled[0].search(rows(2, 9), 3, labels="c")
    assert found.ids == [[None] * 3] * 2


def test_more_than_there_are_is_filled_up(tmp_path):
    with create(tmp_path / "x") as index:
        index.add(["a", "b"], rows(2), ["l", "l"])
        found = index.search(rows(1), 4)
    assert found.ids == [["a", "b", None, None]]
    assert found.labels == [["l", "l", "", ""]]
    np.testing.assert_array_equal(found.distances[0, 2:], np.inf)


def test_the_graph_is_kept_and_extended(filled, added):
    graph, exact = filled
    graph.prepare()
    for index in filled:
        index.add([str(NUM + i) for i in range(50)], rows(50, 77))
    assert_alike(graph, exact)
    assert added == [NUM, 50]
    graph.close()
    assert_alike(VectorIndex.open(graph._store.folder), exact)
    assert added == [NUM, 50]


def test_a_few_rows_are_not_worth_writing_the_graph(filled, added):
    graph, exact = filled
    graph.prepare()
    path = graph._store.folder / hnsw.GRAPH
    before = path.read_bytes()
    for i in range(7):
        for index in filled:
            index.add([f"new {i}"], rows(1, i))
        assert_alike(graph, exact)
        # The seventh makes more than one in a hundred.
        assert (path.read_bytes() == before) == (i < 6)
    graph.close()
    assert_alike(VectorIndex.open(path.parent), exact)
    assert added == [NUM] + [1] * 7


def test_a_graph_that_was_cut_off_is_not_used(filled, monkeypatch):
    graph, exact = filled
    read = store.Store.embeddings

    def cut_off(self, first=0):
        yield next(read(self, first))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store.Store, "embeddings", cut_off)
        with pytest.raises(KeyboardInterrupt):
            graph.search(rows(1), 1)
    assert_alike(graph, exact)


def test_a_reader_keeps_the_graph_unless_somebody_writes(
    filled, added, warnings_logged
):
    graph, _ = filled
    path = graph._store.folder / hnsw.GRAPH
    VectorIndex.open(path.parent).prepare()
    assert not path.exists()
    assert "cannot be written now" in warnings_logged.pop()
    graph.close()
    reader = VectorIndex.open(path.parent)
    with VectorIndex.open(path.parent, writable=True) as writer:
        writer.add(["new"], rows(1))
    reader.prepare()  # Not of all that there is by now.
    assert not path.exists()
    assert warnings_logged.pop()
    VectorIndex.open(path.parent).prepare()
    assert path.exists()
    assert not warnings_logged
    assert added == [NUM, NUM, NUM + 1]


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "header", "faiss"])
def test_a_graph_that_is_damaged_is_built_again(filled, added, warnings_logged, damage):
    graph, exact = filled
    graph.prepare()
    path = graph._store.folder / hnsw.GRAPH
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    elif damage == "header":
        content[3:5] = b"\xff\xff"
    elif damage == "faiss":  # Whole, and yet nothing that this FAISS reads.
        payload = b"none" * 100
        header = json.loads(content[: hnsw._HEADER_BYTES])
        header["sha256"] = hnsw.hashlib.sha256(payload).hexdigest()
        content = json.dumps(header).encode().ljust(hnsw._HEADER_BYTES) + payload
    size = {"cut": len(content) - 9, "empty": 0}.get(damage)
    path.write_bytes(content[:size])
    assert_alike(VectorIndex.open(path.parent), exact)
    assert added == [NUM, NUM]
    assert "building it again" in warnings_logged[0]
    graph.close()
    VectorIndex.open(path.parent).prepare()
    assert_alike(VectorIndex.open(path.parent), exact)
    assert added == [NUM, NUM, NUM]


def test_a_graph_of_other_batches_is_built_again(tmp_path, warnings_logged):
    for name, seed in (("x", 0), ("y", 1)):
        with create(tmp_path / name) as index:
            index.add([str(i) for i in range(NUM)], rows(NUM, seed))
            index.prepare()
    (tmp_path / "y" / hnsw.GRAPH).replace(tmp_path / "x" / hnsw.GRAPH)
    found = VectorIndex.open(tmp_path / "x").search(rows(1), 1)
    assert found.ids == [["0"]]
    assert "covers other batches" in warnings_logged[0]


def test_a_graph_that_the_disk_cannot_take_is_not_kept(
    filled, monkeypatch, warnings_logged
):
    graph, exact = filled

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(hnsw.files.os, "fsync", full)
    assert_alike(graph, exact)
    assert "No space left on device" in warnings_logged[0]
    assert {x.suffix for x in graph._store.folder.iterdir()} <= {".npy", ".json", ""}


def test_auto_takes_the_graph_beyond_a_size(tmp_path, monkeypatch):
    monkeypatch.setattr(index_lib, "_AUTO_EXACT_ROWS", 100)
    with create(tmp_path / "x", kind="auto") as index:
        index.add([str(i) for i in range(100)], rows(100))
        assert index.kind == "exact"
        index.add(["100"], rows(1))
        assert index.kind == "hnsw"
        index.delete(["0", "1", "2"])
        assert index.kind == "hnsw"
    assert json.loads((tmp_path / "x" / "index.json").read_text())["kind"] == "hnsw"
    assert VectorIndex.open(tmp_path / "x").kind == "hnsw"
    monkeypatch.setattr(hnsw, "is_installed", lambda: False)
    index = VectorIndex.open(tmp_path / "x")
    assert index.kind == "exact"
    assert index.search(rows(1), 1).ids == [["100"]]


def test_without_faiss_auto_stays_exact_and_hnsw_is_refused(tmp_path, monkeypatch):
    with create(tmp_path / "y") as index:
        index.add(["a"], rows(1))
    monkeypatch.setattr(index_lib, "_AUTO_EXACT_ROWS", 10)
    monkeypatch.setattr(hnsw, "is_installed", lambda: False)
    with create(tmp_path / "x", kind="auto") as index:
        index.add([str(i) for i in range(20)], rows(20))
        assert index.kind == "exact"
        assert index.search(rows(1), 1).ids == [["0"]]
    with pytest.raises(MissingExtraError, match=r"deeprank-jax\[search\]"):
        create(tmp_path / "z")
    assert not (tmp_path / "z").exists()
    with pytest.raises(MissingExtraError, match=r"deeprank-jax\[search\]"):
        VectorIndex.open(tmp_path / "y").search(rows(1), 1)
    assert VectorIndex.open(tmp_path / "y").ids() == ["a"]


_WARNS = """
import warnings
warnings.warn("builtin type SwigPyPacked has no __module__ attribute",
              DeprecationWarning)
"""


@pytest.mark.parametrize("pretended", [False, True])
def test_importing_faiss_warns_of_nothing(tmp_path, monkeypatch, pretended):
    """Some versions of it do on Python 3.12."""
    if pretended:
        (tmp_path / "faiss.py").write_text(_WARNS)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "faiss", raising=False)
    hnsw.import_faiss()
    if pretended:
        monkeypatch.delitem(sys.modules, "faiss")
