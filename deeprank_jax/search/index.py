"""Vector index in a folder: embeddings by id that can be added, deleted and searched.

Distances are squared Euclidean or, with the metric "cosine", 1 - cosine. Reading and
adding need neither JAX nor FAISS; a search imports them.
"""

from collections.abc import Collection, Iterator, Sequence
import pathlib
from typing import TYPE_CHECKING, Self

import numpy as np

from deeprank_jax.errors import ArtifactError, DataError
from deeprank_jax.search import hnsw, store
from deeprank_jax.search.manifests import KINDS, METRICS
from deeprank_jax.search.rows import Neighbors, Table

if TYPE_CHECKING:
    from deeprank_jax.search.exact import ExactSearch

# Largest number of rows that "auto" searches exactly, in a tenth of a second for 256
# queries on two cores.
_AUTO_EXACT_ROWS = 200_000
# Smallest share of allowed rows, after labels and deletions, for a search by graph.
_LEAST_SHARE = 0.25
# Largest squared norm whose distances fit float32.
_MAX_SQUARE_NORM = 1e37


class VectorIndex:
    """Embeddings of one model in a folder.

    `with VectorIndex.open(path, writable=True) as index:` releases the writer's lock at
    the end. An index that is open for reading does not see later changes.
    """

    def __init__(self, rows: store.Store):
        """Holds an open store; use `create` or `open`."""
        self._store = rows
        self._graph: hnsw.Graph | None = None
        self._drop_caches()

    @classmethod
    def create(
        cls,
        path: str | pathlib.Path,
        *,
        dim: int,
        model_fingerprint: str,
        metric: str = "squared_euclidean",
        kind: str = "auto",
    ) -> Self:
        """Creates an empty index and opens it for writing.

        Args:
          path: Folder that does not exist yet, or is empty.
          dim: Number of dimensions D of an embedding.
          model_fingerprint: Fingerprint of the model of the embeddings.
          metric: Distance metric, one of METRICS.
          kind: Kind of search, one of KINDS; "auto" searches exactly up to 200,000 rows
            and, if FAISS is installed, by graph above.

        Raises:
          ArtifactError: The folder cannot be used.
          DataError: An argument is out of range.
          MissingExtraError: The kind "hnsw" needs FAISS.
        """
        _check_choice("metric", metric, METRICS)
        _check_choice("kind", kind, KINDS)
        if dim < 1:
            raise DataError(f"dim must be at least 1, got {dim}.")
        if kind == "hnsw":
            hnsw.check_installed()
        manifest = store.Manifest(
            dim=dim,
            model_fingerprint=model_fingerprint,
            metric=metric,
            asked_kind=kind,
            kind="exact" if kind == "auto" else kind,
        )
        return cls(store.create(pathlib.Path(path), manifest))

    @classmethod
    def open(
        cls,
        path: str | pathlib.Path,
        *,
        model_fingerprint: str | None = None,
        writable: bool = False,
    ) -> Self:
        """Opens an index.

        Args:
          path: Folder of the index.
          model_fingerprint: Fingerprint of the model of queries and new rows, if known.
          writable: True to add or delete rows; one process at a time can.

        Raises:
          ArtifactError: There is no index, it is damaged or of another model, or
            another process writes.
        """
        rows = store.Store(pathlib.Path(path), writable=writable)
        index_model = rows.manifest.model_fingerprint
        if model_fingerprint not in (None, index_model):
            rows.close()
            raise ArtifactError(
                f"{path} has embeddings of the model {index_model}, not of "
                f"{model_fingerprint}: use that model, or create an index with this "
                "one."
            )
        return cls(rows)

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the index."""
        self.close()

    def close(self) -> None:
        """Releases the writer's lock; the index can still be searched."""
        self._store.close()

    @property
    def metric(self) -> str:
        """Returns the distance metric, one of METRICS."""
        return self._store.manifest.metric

    @property
    def kind(self) -> str:
        """Returns the kind of search in use: "exact" or "hnsw"."""
        manifest = self._store.manifest
        is_auto = manifest.asked_kind == "auto"
        if manifest.kind == "hnsw" and is_auto and not hnsw.is_installed():
            return "exact"
        return manifest.kind

    @property
    def dim(self) -> int:
        """Returns the number of dimensions of an embedding."""
        return self._store.manifest.dim

    def __len__(self) -> int:
        """Returns the number of rows."""
        return self._store.manifest.num_rows - self._store.manifest.num_deleted

    def ids(self) -> list[str]:
        """Returns the id of each row, in the order of adding."""
        return list(self._table().places)

    def labels(self) -> dict[str, str]:
        """Returns the label of each id, `""` for a row without one."""
        table = self._table()
        return {name: table.labels[row] for name, row in table.places.items()}

    def label_names(self) -> set[str]:
        """Returns the labels of the rows, without `""`."""
        return set(self.labels().values()) - {""}

    def check_writable(self, verb: str) -> None:
        """Checks that the index is open for writing.

        Args:
          verb: Verb of the error message, e.g. `"add"`.

        Raises:
          ArtifactError: The index is open for reading only.
        """
        if not self._store.writable:
            raise ArtifactError(
                f"{self._store.folder} is open for reading; to {verb}, open it with "
                "writable=True."
            )

    def add(
        self,
        ids: Sequence[str],
        embeddings: np.ndarray,
        labels: Sequence[str | None] | None = None,
    ) -> None:
        """Adds rows, all of them or, after an error, none.

        Args:
          ids: Ids of the `n` rows, not in the index yet, e.g. paths.
          embeddings: `[n, D]` finite floats, stored as float32.
          labels: Labels of the `n` rows; None for rows without labels.

        Raises:
          ArtifactError: The index is open for reading, or cannot be written.
          DataError: An id is not new, an embedding is not finite, or shapes differ.
        """
        self.check_writable("add")
        ids = [str(x) for x in ids]
        texts = [x or "" for x in labels] if labels is not None else [""] * len(ids)
        embeddings = self._as_rows("embeddings", embeddings)
        if not len(ids) == len(embeddings) == len(texts):
            raise DataError(
                f"{len(ids):,} ids, {len(embeddings):,} embeddings and {len(texts):,} "
                "labels: give one of each for every row."
            )
        self._check_new(ids)
        if not ids:
            return
        table, manifest = self._table(), self._store.manifest
        grows = len(self) + len(ids) > _AUTO_EXACT_ROWS and hnsw.is_installed()
        kind = "hnsw" if manifest.asked_kind == "auto" and grows else manifest.kind
        # If the commit fails, the table is read from disk again.
        self._drop_caches()
        self._store.append(embeddings, ids, texts, kind=kind)
        table.append(ids, texts)
        self._cached_table = table

    def delete(self, ids: Collection[str]) -> None:
        """Deletes rows, all of them or, after an error, none.

        Args:
          ids: Ids of rows in the index.

        Raises:
          ArtifactError: The index is open for reading, or cannot be written.
          DataError: An id is not in the index.
        """
        self.check_writable("delete")
        table = self._table()
        unique_ids = list(dict.fromkeys(ids))
        if unknown := [x for x in unique_ids if x not in table.places]:
            raise DataError(
                f"{len(unknown):,} of {len(unique_ids):,} ids are not in "
                f"{self._store.folder}, the first is {unknown[0]!r}: leave them out."
            )
        if not unique_ids:
            return
        rows = np.array([table.places[x] for x in unique_ids], np.int64)
        self._drop_caches()
        self._store.delete(rows)
        table.delete(unique_ids, rows)
        self._cached_table = table

    def search(
        self,
        queries: np.ndarray,
        k: int,
        *,
        labels: str | Collection[str] | None = None,
    ) -> Neighbors:
        """Finds the `k` rows nearest to each query.

        An index of the kind "exact" finds the nearest, and equal distances rank in the
        order of adding. An index of the kind "hnsw" may miss some; queries of which its
        graph misses too many, as a sample of such queries showed, are searched exactly.

        Args:
          queries: `[Q, D]` finite floats.
          k: Number of neighbours, at least 1.
          labels: Label, or labels, of the rows to search; None for all rows.

        Returns:
          The nearest rows; missing ones are filled as `Neighbors` says.

        Raises:
          ArtifactError: The index is damaged.
          DataError: The index is empty, or an argument is out of range.
        """
        queries = self._prepared(self._as_rows("queries", queries))
        if k < 1:
            raise DataError(f"k must be at least 1, got {k}.")
        if not len(self):
            raise DataError(f"{self._store.folder} is empty; add images to it first.")
        distances = np.full((len(queries), k), np.inf, np.float32)
        rows = np.full((len(queries), k), -1, np.int64)
        names = [labels] if isinstance(labels, str) else labels
        key = None if names is None else frozenset(names)
        allowed = self._table().rows_of(key)
        num = min(k, len(allowed))
        if num and len(queries):
            distances[:, :num], rows[:, :num] = self._nearest(
                queries, num, key, allowed
            )
        if self.metric == "cosine":
            distances /= 2
        return self._named(distances, rows)

    def vectors(self, ids: Sequence[str]) -> np.ndarray:
        """Returns embeddings as they were added, `[n, D]` float32.

        Args:
          ids: Ids of `n` rows in the index.

        Raises:
          ArtifactError: The index is damaged.
        """
        rows = np.array([self._table().places[x] for x in ids], np.int64)
        numbers, order = np.unique(rows, return_inverse=True)
        none = np.empty((0, self.dim), np.float32)
        return np.concatenate([none, *self._stored(numbers)])[order]

    def prepare(self) -> None:
        """Loads or builds the data of the first search, and saves a graph on disk.

        Raises:
          ArtifactError: The index is damaged.
        """
        if not len(self):
            return
        allowed = self._table().rows_of(None)
        if self._walks_graph(None, len(allowed)):
            self._open_graph()
        else:
            self._open_exact(None, allowed)

    def _nearest(
        self,
        queries: np.ndarray,
        k: int,
        labels: frozenset[str] | None,
        allowed: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns squared distances and row numbers, infinite and -1 for no row."""
        if self._walks_graph(labels, len(allowed)):
            is_allowed = np.zeros(self._store.manifest.num_rows, bool)
            is_allowed[allowed] = True
            graph = self._open_graph()
            distances, rows, is_reliable = graph.search(queries, k, is_allowed)
            missed = np.flatnonzero(~is_reliable)
            if len(missed):
                distances[missed], rows[missed] = self._nearest_exactly(
                    queries[missed], k, labels, allowed
                )
            return distances, rows
        return self._nearest_exactly(queries, k, labels, allowed)

    def _nearest_exactly(
        self,
        queries: np.ndarray,
        k: int,
        labels: frozenset[str] | None,
        allowed: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        distances, places = self._open_exact(labels, allowed).search(queries, k)
        return distances, allowed[places]

    def _walks_graph(self, labels: frozenset[str] | None, num_allowed: int) -> bool:
        if self.kind != "hnsw":
            return False
        few = labels is not None and num_allowed <= _AUTO_EXACT_ROWS
        return not few and num_allowed >= _LEAST_SHARE * self._store.manifest.num_rows

    def _open_graph(self) -> hnsw.Graph:
        # A graph that was extended in part, because of an error, must not be used.
        graph, self._graph = self._graph or hnsw.open_graph(self._store), None
        graph.extend(self._store, self._prepared)
        self._graph = graph
        return graph

    def _open_exact(
        self, labels: frozenset[str] | None, allowed: np.ndarray
    ) -> "ExactSearch":
        """Returns the gallery of the allowed rows."""
        from deeprank_jax.search.exact import ExactSearch

        if labels not in self._exact:
            # Only all rows, and the rows of the latest labels, stay in memory.
            self._exact = {key: x for key, x in self._exact.items() if key is None}
            parts = self._rows(allowed)
            self._exact[labels] = ExactSearch(parts, len(allowed), self.dim)
        return self._exact[labels]

    def _rows(self, numbers: np.ndarray) -> Iterator[np.ndarray]:
        """Yields the vectors to compare of rows, see `_stored`."""
        yield from map(self._prepared, self._stored(numbers))

    def _stored(self, numbers: np.ndarray) -> Iterator[np.ndarray]:
        """Yields the embeddings of rows, in the order of their ascending numbers."""
        start = 0
        for batch in self._store.embeddings():
            first, last = np.searchsorted(numbers, [start, start + len(batch)])
            yield batch[numbers[first:last] - start]
            start += len(batch)

    def _prepared(self, embeddings: np.ndarray) -> np.ndarray:
        """Returns the vectors to compare: unit vectors for the metric "cosine"."""
        if self.metric != "cosine":
            return embeddings
        wide = embeddings.astype(np.float64)
        norms = np.linalg.norm(wide, axis=1, keepdims=True)
        if not norms.all():
            raise ArtifactError(
                f"{self._store.folder} is damaged: it has rows of zeros, which have no "
                "cosine; create the index again."
            )
        return (wide / norms).astype(np.float32)

    def _named(self, distances: np.ndarray, rows: np.ndarray) -> Neighbors:
        table = self._table()
        ids = [[table.ids[x] if x >= 0 else None for x in row] for row in rows]
        labels = [[table.labels[x] if x >= 0 else "" for x in row] for row in rows]
        return Neighbors(distances, ids, labels)

    def _table(self) -> Table:
        if self._cached_table is None:
            self._cached_table = Table(*self._store.names(), self._store.deleted())
        return self._cached_table

    def _drop_caches(self) -> None:
        """Drops everything that was read from the files.

        The graph stays, since it may cover fewer rows than there are.
        """
        self._cached_table: Table | None = None
        self._exact: dict[frozenset[str] | None, ExactSearch] = {}

    def _check_new(self, ids: list[str]) -> None:
        unique: set[str] = set()
        for name in ids:
            if name in unique:
                raise DataError(f"{name!r} is given twice; give each id once.")
            unique.add(name)
        if existing := [name for name in ids if name in self._table().places]:
            raise DataError(
                f"{len(existing):,} of {len(ids):,} ids are in {self._store.folder} "
                f"already, the first is {existing[0]!r}: leave them out, or delete "
                "them first."
            )

    def _as_rows(self, name: str, rows: np.ndarray) -> np.ndarray:
        rows = np.asarray(rows, np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.dim:
            raise DataError(
                f"{name} are {list(rows.shape)}, {self._store.folder} has embeddings "
                f"of {self.dim} numbers: give [N, {self.dim}], of the same model."
            )
        square_norms = np.einsum("nd,nd->n", rows, rows)
        # The comparison is also False for NaN.
        bad = np.flatnonzero(~(square_norms < _MAX_SQUARE_NORM))
        why = f"not finite, or too large to be squared: leave {name} like it out"
        if self.metric == "cosine" and not len(bad):
            bad = np.flatnonzero(square_norms == 0)
            why = 'zero, which has no cosine: leave it out, or use "squared_euclidean"'
        if len(bad):
            raise DataError(
                f"{len(bad):,} of {len(rows):,} {name} cannot be used, the first is "
                f"row {bad[0]}, which is {why}."
            )
        return rows


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise DataError(f"{name} must be one of {', '.join(choices)}, got {value!r}.")
