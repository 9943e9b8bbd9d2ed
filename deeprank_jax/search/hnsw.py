"""Approximate search by a graph of near rows (HNSW), built by FAISS.

The graph is derived from the committed batches. Its file names the batches it covers: a
missing, damaged or foreign graph is built again, and missing batches are added.

References:
  Malkov and Yashunin, Efficient and robust approximate nearest neighbor search using
  Hierarchical Navigable Small World graphs, 2016, https://arxiv.org/abs/1603.09320.
"""

from collections.abc import Callable
import hashlib
import importlib.util
import json
import types
from typing import IO, Any
import warnings

from absl import logging
import numpy as np
import tqdm

from deeprank_jax import files
from deeprank_jax.errors import missing_extra, needs_extra
from deeprank_jax.search import store as store_lib

GRAPH = "graph.faiss"
# On the million rows of `tools.benchmark search`, 16 links and a build width of 80 find
# .964 of the ten nearest in place of .996; 32 and 120 take 1.4 times as long to build.
_LINKS, _BUILD_WIDTH, _SEARCH_WIDTH = 24, 100, 64
_AT_ONCE = 2**14
_HEADER_BYTES = 256
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

    def __init__(self, dim: int, faiss_index: Any = None, num_batches: int = 0):
        """Wraps a graph of FAISS, or creates an empty one.

        Args:
          dim: Number of dimensions D.
          faiss_index: Graph as FAISS read it; None for an empty one.
          num_batches: Number of batches that it covers.
        """
        faiss = import_faiss()
        if faiss_index is None:
            faiss_index = faiss.IndexHNSWFlat(dim, _LINKS)
            faiss_index.hnsw.efConstruction = _BUILD_WIDTH
        self.faiss_index = faiss_index
        self.num_batches = num_batches
        self.num_saved = self.faiss_index.ntotal

    def search(
        self, queries: np.ndarray, k: int, is_allowed: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Finds rows near to each query.

        Args:
          queries: `[Q, D]` float32.
          k: Number of neighbours.
          is_allowed: `[N]` bool, True for rows that may be returned.

        Returns:
          Squared distances `[Q, k]` float32, ascending, and row numbers `[Q, k]`;
          infinite and -1 where fewer than `k` rows were reached.
        """
        faiss = import_faiss()
        # The width counts rows that may not be returned, too.
        width = max(_SEARCH_WIDTH, 2 * k) / is_allowed.mean()
        options = {"efSearch": int(width)}
        if not is_allowed.all():
            bits = np.packbits(is_allowed, bitorder="little")
            options["sel"] = faiss.IDSelectorBitmap(bits)
        parameters = faiss.SearchParametersHNSW(**options)
        distances, rows = self.faiss_index.search(queries, k, params=parameters)
        return np.where(rows >= 0, distances, np.inf), rows

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
        num_new = sum(batch.num_rows for batch in batches[self.num_batches :])
        with tqdm.tqdm(total=num_new, desc="graph", unit=" rows", disable=None) as bar:
            for embeddings in store.embeddings(self.num_batches):
                rows = prepare(embeddings)
                for start in range(0, len(rows), _AT_ONCE):
                    part = rows[start : start + _AT_ONCE]
                    self.faiss_index.add(part)
                    bar.update(len(part))
        self.num_batches = len(batches)
        total = store.manifest.num_rows
        if total - self.num_saved > _FEW * total:
            save_graph(self, store)
            self.num_saved = total


def open_graph(store: store_lib.Store) -> Graph:
    """Reads the graph of a store, or creates an empty one.

    Args:
      store: Store of the batches.

    Returns:
      A graph that covers all, some or none of the batches.
    """
    dim, path = store.manifest.dim, store.folder / GRAPH
    try:
        with path.open("rb") as file:
            return _read(file, store)
    except FileNotFoundError:
        return Graph(dim)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
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
    """Writes the graph as FAISS does, and returns its SHA-256."""
    faiss = import_faiss()
    digest = hashlib.sha256()

    def write(part: bytes) -> int:
        digest.update(part)
        return file.write(part)

    faiss.write_index(graph.faiss_index, faiss.PyCallbackIOWriter(write))
    return digest.hexdigest()


def _read(file: IO[bytes], store: store_lib.Store) -> Graph:
    faiss = import_faiss()
    header = json.loads(file.read(_HEADER_BYTES))
    num_batches = header["num_batches"]
    if header["batches"] != _digest(store, num_batches):
        raise ValueError("it covers other batches")
    if store_lib.checksum(file) != header["sha256"]:
        raise ValueError("its checksum differs")
    file.seek(_HEADER_BYTES)
    faiss_index = faiss.read_index(faiss.PyCallbackIOReader(file.read))
    return Graph(store.manifest.dim, faiss_index, num_batches)


def _digest(store: store_lib.Store, num_batches: int) -> str:
    """Returns a checksum of the first batches and of the graph's parameters."""
    batches = store.manifest.batches[:num_batches]
    content: list[object] = [[_LINKS, _BUILD_WIDTH, store.manifest.metric]]
    content += [batch.sha256[".npy"] for batch in batches]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
