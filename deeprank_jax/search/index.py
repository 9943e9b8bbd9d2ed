"""An index of embeddings by id in a folder, to add to, delete from and search.

Distances are squared Euclidean or, with the metric "cosine", 1 - cosine. Reading and
adding need neither JAX nor FAISS; a search loads what it needs.
"""

from collections.abc import Collection, Iterator, Sequence
import dataclasses
import pathlib
from typing import Any, Self

import numpy as np

from deeprank_jax.errors import ArtifactError, DataError
from deeprank_jax.search import hnsw, store
from deeprank_jax.search.rows import Table

METRICS = ("squared_euclidean", "cosine")
KINDS = ("auto", "exact", "hnsw")
# Rows up to which "auto" searches exactly: 256 queries take a tenth of a second on two
# cores.
_AUTO_EXACT_ROWS = 200_000
# A graph is walked where labels and deletions leave this share of its rows or more.
_LEAST_SHARE = 0.25
# Squared norms up to here leave room for distances in float32.
_MAX_SQUARE_NORM = 1e37


@dataclasses.dataclass(frozen=True)
class Found:
    """What is nearest to `Q` queries, nearest first.

    Where fewer than `k` rows were found, the distance is infinite, the id None and the
    label "".
    """

    distances: np.ndarray  # [Q, k] float32.
    ids: list[list[str | None]]
    labels: list[list[str]]


class VectorIndex:
    """Embeddings of one model in a folder.

    `with VectorIndex.open(path, writable=True) as index:` gives back the writer's lock at the
    end. An index that is open for reading stays as it was when it was opened.
    """

    def __init__(self, opened: store.Store):
        """Holds an open store; use `create` or `open`."""
        self._store = opened
        self._graph: hnsw.Graph | None = None
        self._forget()

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
        """Creates an index of no rows and opens it for writing.

        Args:
          path: a folder that is not there, or empty.
          dim: D, how many numbers an embedding has.
          model_fingerprint: which model the embeddings are of.
          metric: one of METRICS.
          kind: one of KINDS; "auto" searches exactly up to 200,000 rows and, if FAISS
            is installed, a graph of the rows beyond.

        Raises:
          DataError: an argument is none of these, or the folder cannot be used.
        """
        _check_choice("metric", metric, METRICS)
        _check_choice("kind", kind, KINDS)
        if dim < 1:
            raise DataError(f"dim={dim}: an embedding has at least 1 number.")
        if kind == "hnsw":
            hnsw.check_installed()
        manifest = store.Manifest(
            dim=dim,
            model_fingerprint=model_fingerprint,
            metric=metric,
            asked_kind=kind,
            kind="exact" if kind == "auto" else kind,
        )
        folder = pathlib.Path(path)
        store.create(folder, manifest)
        return cls(store.Store(folder, writable=True))

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
          path: its folder.
          model_fingerprint: the model that queries and new rows are of, if known.
          writable: whether to add or delete; one process at a time can.

        Raises:
          DataError: there is no index, it is damaged or of another model, or another
            process writes.
        """
        opened = store.Store(pathlib.Path(path), writable=writable)
        built_by = opened.manifest.model_fingerprint
        if model_fingerprint not in (None, built_by):
            opened.close()
            raise DataError(
                f"{path} holds embeddings of the model {built_by}, not of "
                f"{model_fingerprint}: use that model, or make an index with this one."
            )
        return cls(opened)

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes it."""
        self.close()

    def close(self) -> None:
        """Gives back the writer's lock; what was opened can still be searched."""
        self._store.close()

    @property
    def metric(self) -> str:
        """What a distance is, one of METRICS."""
        return self._store.manifest.metric

    @property
    def kind(self) -> str:
        """How it is searched: "exact" or "hnsw"."""
        manifest = self._store.manifest
        chosen = manifest.asked_kind == "auto"
        if manifest.kind == "hnsw" and chosen and not hnsw.is_installed():
            return "exact"
        return manifest.kind

    @property
    def dim(self) -> int:
        """How many numbers an embedding has."""
        return self._store.manifest.dim

    def __len__(self) -> int:
        """Returns how many rows there are."""
        return self._store.manifest.num_rows - self._store.manifest.num_deleted

    def ids(self) -> list[str]:
        """Returns the id of each row, in the order they were added."""
        table = self._table()
        return [table.ids[row] for row in np.flatnonzero(table.is_live)]

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
        """Adds rows, all of them or, if anything fails, none.

        Args:
          ids: `n` str that are not in the index, e.g. paths.
          embeddings: `[n, D]` finite floats, kept as float32.
          labels: `n` str or None, or None for no labels.

        Raises:
          DataError: an argument is none of these, or the disk cannot take it.
        """
        self.check_writable("add")
        ids = [str(x) for x in ids]
        texts = [x or "" for x in labels] if labels is not None else [""] * len(ids)
        embeddings = self._checked("embeddings", embeddings)
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
        # If the commit fails, what is on disk counts.
        self._forget()
        self._store.append(embeddings, ids, texts, kind=kind)
        table.append(ids, texts)
        self._known = table

    def delete(self, ids: Collection[str]) -> None:
        """Deletes rows, all of them or, if anything fails, none.

        Args:
          ids: of rows in the index.

        Raises:
          DataError: an id is not in the index, or the disk cannot take it.
        """
        self.check_writable("delete")
        table = self._table()
        wanted = list(dict.fromkeys(ids))
        unknown = [x for x in wanted if x not in table.places]
        if unknown:
            raise DataError(
                f"{len(unknown):,} of {len(wanted):,} ids are not in "
                f"{self._store.folder}, the first is {unknown[0]!r}: leave them out."
            )
        if not wanted:
            return
        rows = np.array([table.places[x] for x in wanted], np.int64)
        self._forget()
        self._store.delete(rows)
        table.delete(wanted, rows)
        self._known = table

    def search(
        self,
        queries: np.ndarray,
        k: int,
        *,
        labels: str | Collection[str] | None = None,
    ) -> Found:
        """Finds the `k` rows nearest to each query.

        An index of the kind "exact" finds the nearest, and equal distances rank in the
        order of adding. One of the kind "hnsw" may miss some.

        Args:
          queries: `[Q, D]` finite floats.
          k: how many, at least 1.
          labels: only rows of this label, or of these.

        Returns:
          What was found; fewer than `k` rows are filled up as `Found` says.

        Raises:
          DataError: the index is empty or damaged, or an argument is none of these.
        """
        queries = self._prepared(self._checked("queries", queries))
        if k < 1:
            raise DataError(f"k={k}: ask for 1 or more.")
        if not len(self):
            raise DataError(f"{self._store.folder} is empty; add images to it first.")
        distances = np.full((len(queries), k), np.inf, np.float32)
        rows = np.full((len(queries), k), -1, np.int64)
        wanted = {labels} if isinstance(labels, str) else labels
        key = None if wanted is None else frozenset(wanted)
        allowed = self._table().rows_of(key)
        num = min(k, len(allowed))
        if num and len(queries):
            distances[:, :num], rows[:, :num] = self._nearest(
                queries, num, key, allowed
            )
        if self.metric == "cosine":
            distances /= 2
        return self._named(distances, rows)

    def prepare(self) -> None:
        """Does now what the first search would wait for, and keeps a graph on disk.

        Raises:
          DataError: the index is damaged, or the disk cannot take the graph.
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
        """Returns squared distances and row numbers, infinite and -1 for none."""
        if self._walks_graph(labels, len(allowed)):
            is_allowed = np.zeros(self._store.manifest.num_rows, bool)
            is_allowed[allowed] = True
            return self._open_graph().search(queries, k, is_allowed)
        distances, places = self._open_exact(labels, allowed).search(queries, k)
        return distances, allowed[places]

    def _walks_graph(self, labels: frozenset[str] | None, num_allowed: int) -> bool:
        if self.kind != "hnsw":
            return False
        few = labels is not None and num_allowed <= _AUTO_EXACT_ROWS
        return not few and num_allowed >= _LEAST_SHARE * self._store.manifest.num_rows

    def _open_graph(self) -> hnsw.Graph:
        # What is cut off half-way is not used.
        graph, self._graph = self._graph or hnsw.open_graph(self._store), None
        graph.extend(self._store, self._prepared)
        self._graph = graph
        return graph

    def _open_exact(self, labels: frozenset[str] | None, allowed: np.ndarray) -> Any:
        """Returns the gallery of these rows, as `nearest.ExactSearch`."""
        from deeprank_jax.search import neighbors

        if labels not in self._exact:
            # Beside all rows, only those of the labels last asked for stay in memory.
            self._exact = {key: x for key, x in self._exact.items() if key is None}
            parts = self._rows(allowed)
            self._exact[labels] = neighbors.ExactSearch(parts, len(allowed), self.dim)
        return self._exact[labels]

    def _rows(self, numbers: np.ndarray) -> Iterator[np.ndarray]:
        """Yields the embeddings of rows, in the order of their ascending numbers."""
        start = 0
        for batch in self._store.embeddings():
            first, last = np.searchsorted(numbers, [start, start + len(batch)])
            yield self._prepared(batch[numbers[first:last] - start])
            start += len(batch)

    def _prepared(self, embeddings: np.ndarray) -> np.ndarray:
        """Returns what squared Euclidean distances are taken of."""
        if self.metric != "cosine":
            return embeddings
        wide = embeddings.astype(np.float64)
        return (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32)

    def _named(self, distances: np.ndarray, rows: np.ndarray) -> Found:
        table = self._table()
        ids = [[table.ids[x] if x >= 0 else None for x in row] for row in rows]
        labels = [[table.labels[x] if x >= 0 else "" for x in row] for row in rows]
        return Found(distances, ids, labels)

    def _table(self) -> Table:
        if self._known is None:
            self._known = Table(*self._store.names(), self._store.deleted())
        return self._known

    def _forget(self) -> None:
        """Drops what follows from the files, to be read again when it is needed.

        A graph may cover fewer rows than there are, so that it can stay.
        """
        self._known: Table | None = None
        self._exact: dict[frozenset[str] | None, Any] = {}

    def _check_new(self, ids: list[str]) -> None:
        given: set[str] = set()
        for name in ids:
            if name in given:
                raise DataError(f"{name!r} is given twice; give each id once.")
            given.add(name)
        known = [name for name in ids if name in self._table().places]
        if known:
            raise DataError(
                f"{len(known):,} of {len(ids):,} ids are in {self._store.folder} "
                f"already, the first is {known[0]!r}: leave them out, or delete them "
                "first."
            )

    def _checked(self, name: str, rows: np.ndarray) -> np.ndarray:
        rows = np.asarray(rows, np.float32)
        if rows.ndim != 2 or rows.shape[1] != self.dim:
            raise DataError(
                f"{name} are {list(rows.shape)}, {self._store.folder} holds embeddings "
                f"of {self.dim} numbers: give [N, {self.dim}], of the same model."
            )
        square_norms = np.einsum("nd,nd->n", rows, rows)
        # Also where it is not a number.
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
        raise DataError(f"{name}={value!r}: choose one of {', '.join(choices)}.")
