"""Approximate search by a graph of near rows (HNSW), built by FAISS.

The graph is derived from the committed batches. Its file names the batches it covers: a
missing, damaged or foreign graph is built again, and missing batches are added. Equal
rows enter it once. Its recall is measured when it is built, and sets the width of the
search; what a graph cannot find well enough is left to an exact search.

References:
  Malkov and Yashunin, Efficient and robust approximate nearest neighbor search using
  Hierarchical Navigable Small World graphs, 2016, https://arxiv.org/abs/1603.09320.
"""

from collections.abc import Callable
import dataclasses
import hashlib
import importlib.util
import io
import json
import types
from typing import IO, Any
import warnings

from absl import logging
import numpy as np

from deeprank_jax import files
from deeprank_jax.errors import missing_extra, needs_extra
from deeprank_jax.files.arrays import check_npy
from deeprank_jax.progress import Bar
from deeprank_jax.search import graph_recall
from deeprank_jax.search import store as store_lib
from deeprank_jax.search.distinct_rows import DistinctRows, RowsOfNodes
from deeprank_jax.search.graph_check import check_graph

GRAPH = "graph.faiss"
# On the million rows of `tools.benchmark search`, 16 links and a build width of 80 find
# .964 of the ten nearest in place of .996; 32 and 120 take 1.4 times as long to build.
_LINKS, _BUILD_WIDTH = 24, 100
_AT_ONCE = 2**14
_HEADER_BYTES = 256
# Raised when the layout of the file changes.
_FORMAT = 2
# Share of new rows up to which the graph file is not written again.
_FEW = 0.01

Prepare = Callable[[np.ndarray], np.ndarray]


def is_installed() -> bool:
    """Returns whether FAISS can be imported."""
    return importlib.util.find_spec("faiss") is not None


def check_installed() -> None:
    """Checks that FAISS can be imported.

    Raises:
      MissingExtraError: FAISS is not installed.
    """
    if not is_installed():
        raise missing_extra("faiss-cpu", "search")


def import_faiss() -> types.ModuleType:
    """Returns FAISS.

    Raises:
      MissingExtraError: FAISS is not installed.
    """
    check_installed()
    with warnings.catch_warnings():
        # FAISS's SWIG wrapper warns on import.
        warnings.filterwarnings("ignore", "builtin type", DeprecationWarning)
        with needs_extra("search"):
            import faiss
    return faiss


class Graph:
    """The graph of the first batches of a store."""

    def __init__(
        self,
        dim: int,
        faiss_index: Any = None,
        num_batches: int = 0,
        nodes: np.ndarray | None = None,
        widths: graph_recall.SearchWidths | None = None,
    ):
        """Wraps a graph of FAISS, or creates an empty one.

        Args:
          dim: Number of dimensions D.
          faiss_index: Graph as FAISS read it; None for an empty one.
          num_batches: Number of batches that it covers.
          nodes: `[N]` int32, node of each row in the graph; None for an empty one.
          widths: Widths of the search; None for those of a graph without rows.
        """
        faiss = import_faiss()
        if faiss_index is None:
            faiss_index = faiss.IndexHNSWFlat(dim, _LINKS)
            faiss_index.hnsw.efConstruction = _BUILD_WIDTH
        self.faiss_index = faiss_index
        self.num_batches = num_batches
        self.rows = DistinctRows(nodes)
        self.widths = widths or graph_recall.SearchWidths()
        self.num_saved = len(self.rows.nodes)
        self._allowed: tuple[np.ndarray, RowsOfNodes] | None = None

    def search(
        self, queries: np.ndarray, k: int, is_allowed: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Finds rows near to each query.

        Args:
          queries: `[Q, D]` float32.
          k: Number of neighbours, at most the number of allowed rows.
          is_allowed: `[N]` bool, True for rows that may be returned.

        Returns:
          Squared distances `[Q, k]` float32, ascending, row numbers `[Q, k]`, and
          `[Q]` bool, False for queries that need an exact search: of a kind of which
          the graph misses too much, or with fewer than `k` rows reached.
        """
        rows = self._rows_of_nodes(is_allowed)
        widths = self.widths
        if not widths.near:
            shape = len(queries), k
            nothing = np.full(shape, np.inf, np.float32), np.full(shape, -1)
            return *nothing, np.zeros(len(queries), bool)
        distances, nodes = self._walk(queries, k, widths.near, rows)
        is_far = distances[:, 0] > widths.near_limit
        if widths.far > widths.near and is_far.any():
            again = self._walk(queries[is_far], k, widths.far, rows)
            distances[is_far], nodes[is_far] = again
        distances, numbers = rows.expand(distances, nodes)
        is_far &= not widths.far
        return distances, numbers, ~is_far & (numbers[:, -1] >= 0)

    def _rows_of_nodes(self, is_allowed: np.ndarray) -> RowsOfNodes:
        """Returns the allowed rows of each node, from the last search if possible."""
        if self._allowed is None or not np.array_equal(self._allowed[0], is_allowed):
            rows = RowsOfNodes(self.rows.nodes, self.rows.num_nodes, is_allowed)
            self._allowed = is_allowed, rows
        return self._allowed[1]

    def _walk(
        self, queries: np.ndarray, k: int, width: int, rows: RowsOfNodes
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns squared distances and nodes, infinite and -1 for none."""
        is_allowed = rows.is_allowed
        options = {}
        if not is_allowed.all():
            bits = np.packbits(is_allowed, bitorder="little")
            options["sel"] = import_faiss().IDSelectorBitmap(bits)
        # The width counts nodes that may not be returned, too.
        wide = max(width, 2 * k) / is_allowed.mean()
        distances, nodes = graph_recall.search_graph(
            self.faiss_index, queries, k, wide, **options
        )
        return np.where(nodes >= 0, distances, np.inf), nodes

    def extend(self, store: store_lib.Store, prepare: Prepare) -> None:
        """Adds the batches that the graph does not cover.

        The graph is saved if more than a few rows were added. After an error it must
        not be used.

        Args:
          store: Store of the batches.
          prepare: Function from a batch's embeddings to the vectors to compare.
        """
        batches = store.manifest.batches
        if self.num_batches == len(batches):
            return
        if not self.rows.is_remembered:
            self._remember_nodes()
        num_new = sum(batch.num_rows for batch in batches[self.num_batches :])
        with Bar(total=num_new, desc="graph", unit="row") as bar:
            for embeddings in store.embeddings(self.num_batches):
                rows = prepare(embeddings)
                for start in range(0, len(rows), _AT_ONCE):
                    part = rows[start : start + _AT_ONCE]
                    self.faiss_index.add(part[self.rows.add(part)])
                    bar.update(len(part))
        self.num_batches = len(batches)
        total = store.manifest.num_rows
        if total - self.num_saved > _FEW * total:
            self._measure(store)
            save_graph(self, store)
            self.num_saved = total

    def _remember_nodes(self) -> None:
        """Gives the contents of the nodes of a saved graph to the lookup."""
        storage = self.faiss_index.storage
        for start in range(0, self.rows.num_nodes, _AT_ONCE):
            num = min(_AT_ONCE, self.rows.num_nodes - start)
            self.rows.remember(storage.reconstruct_n(start, num))

    def _measure(self, store: store_lib.Store) -> None:
        """Sets the widths of the search by the recall of samples."""
        self.widths = graph_recall.measure_widths(self.faiss_index, self.rows.num_nodes)
        if not self.widths.near:
            logging.warning(
                "%s: the graph misses too many of the nearest rows; searching exactly.",
                store.folder,
            )


def open_graph(store: store_lib.Store) -> Graph:
    """Reads the graph of a store, or creates an empty one.

    Args:
      store: Store of the batches.

    Returns:
      A graph that covers all, some or none of the batches.
    """
    dim, path = store.manifest.dim, store.folder / GRAPH
    try:
        with files.open_file(path) as file:
            return _read(file, store)
    except FileNotFoundError:
        return Graph(dim)
    except (OSError, ValueError, LookupError, TypeError, RuntimeError) as error:
        logging.warning("%s cannot be used (%s); building it again.", path, error)
        return Graph(dim)


def save_graph(graph: Graph, store: store_lib.Store) -> None:
    """Saves a graph if possible; if not, the next search builds it again.

    Args:
      graph: Graph that covers all batches.
      store: Store of the batches.
    """
    header: dict[str, int | str] = {
        "num_batches": graph.num_batches,
        "batches": _digest(store, graph.num_batches),
    }
    path = store.folder / GRAPH
    with store.try_writing() as can_write:
        if not can_write:
            logging.warning("%s cannot be written now; the graph is not saved.", path)
            return
        try:
            with files.replacing(path) as file:
                file.write(bytes(_HEADER_BYTES))
                header["sha256"] = _write(graph, file)
                file.seek(0)
                file.write(json.dumps(header).encode().ljust(_HEADER_BYTES))
        except OSError as error:
            logging.warning("%s is not saved: %s.", path, error.strerror)


def _write(graph: Graph, file: IO[bytes]) -> str:
    """Writes the widths, the nodes and the graph, and returns their SHA-256."""
    faiss = import_faiss()
    digest = hashlib.sha256()

    def write(part: bytes) -> int:
        digest.update(part)
        return file.write(part)

    for array in (np.array(dataclasses.astuple(graph.widths)), graph.rows.nodes):
        content = io.BytesIO()
        np.save(content, array)
        write(content.getvalue())
    faiss.write_index(graph.faiss_index, faiss.PyCallbackIOWriter(write))
    return digest.hexdigest()


def _read(file: IO[bytes], store: store_lib.Store) -> Graph:
    faiss = import_faiss()
    header = files.parse_json(file.read(_HEADER_BYTES))
    num_batches = header["num_batches"]
    if header["batches"] != _digest(store, num_batches):
        raise ValueError("it covers other batches, or another version made it")
    if store_lib.checksum(file) != header["sha256"]:
        raise ValueError("its checksum differs")
    file.seek(_HEADER_BYTES)
    near, far, limit = _read_array(file, (3,), np.float64).tolist()
    num_rows = sum(x.num_rows for x in store.manifest.batches[:num_batches])
    nodes = _read_array(file, (num_rows,), np.int32)
    check_graph(file, store.manifest.dim)
    faiss_index = faiss.read_index(faiss.PyCallbackIOReader(file.read))
    are_widths = {near, far} <= {0, *graph_recall.WIDTHS}
    are_nodes = np.array_equal(np.unique(nodes), np.arange(faiss_index.ntotal))
    if not (are_widths and are_nodes):
        raise ValueError("its rows are not those of the index")
    widths = graph_recall.SearchWidths(int(near), int(far), limit)
    return Graph(store.manifest.dim, faiss_index, num_batches, nodes, widths)


def _read_array(
    file: IO[bytes], shape: tuple[int, ...], dtype: type[np.generic]
) -> np.ndarray:
    check_npy(file)
    array = np.load(file, allow_pickle=False)
    if array.shape != shape or array.dtype != dtype:
        raise ValueError("its tables do not fit the index")
    return array


def _digest(store: store_lib.Store, num_batches: int) -> str:
    """Returns a checksum of the first batches and of the graph's parameters."""
    batches = store.manifest.batches[:num_batches]
    content: list[object] = [[_FORMAT, _LINKS, _BUILD_WIDTH, store.manifest.metric]]
    content += [batch.sha256[".npy"] for batch in batches]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
