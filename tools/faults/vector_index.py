"""Damaged files of a vector index, and of its graph."""

import pathlib
import random

import numpy as np

from deeprank_jax.inference import index_origins
from deeprank_jax.search.index import VectorIndex
from tools.faults import damage
from tools.faults.samples import Samples
from tools.faults.stored import Stored, digest
from tools.faults.trial import Outcome, Trial

_DIM, _ROWS, _NUM_BATCHES = 8, 40, 4


class StoredIndex(Stored):
    """Batches, deletions, manifest and origins of an index.

    A writer opens the damaged index first, as it may tidy up what the manifest does not
    list; then a reader searches it.
    """

    kind = "exact"

    def create(self, samples: Samples, folder: pathlib.Path) -> None:
        """Adds batches, and deletes some rows."""
        folder.rmdir()
        with VectorIndex.create(
            folder, dim=_DIM, model_fingerprint="m", kind=self.kind
        ) as index:
            for batch in range(_NUM_BATCHES):
                ids = [f"{batch}/{row}" for row in range(_ROWS)]
                labels = [str(row % 3) for row in range(_ROWS)]
                index.add(ids, _rows(batch), labels)
                if batch % 2:
                    index.delete(ids[::7])
            index.prepare()
        index_origins.write_origins(folder, model="/models/m", source="/photos")

    def read(self, folder: pathlib.Path) -> object:
        """Returns ids, labels and neighbours of some queries, and the origins."""
        VectorIndex.open(folder, model_fingerprint="m", writable=True).close()
        index = VectorIndex.open(folder, model_fingerprint="m")
        neighbors = index.search(_rows(_NUM_BATCHES), 5)
        of_label = index.search(_rows(_NUM_BATCHES), 5, labels="1")
        origins = index_origins.read_origins(folder)
        return (
            index.ids(), sorted(index.label_names()), index.metric, index.kind,
            digest(neighbors.distances), neighbors.ids, neighbors.labels,
            digest(of_label.distances), of_label.ids,
            origins.model, dict(origins.sources),
        )  # fmt: skip

    def run(self, folder: pathlib.Path, rng: random.Random) -> Trial:
        """Damages a copy, reads it, and checks that no other file has gone."""
        trial = super().run(folder, rng)
        copy = folder / self._whole.name
        before = {x.relative_to(self._whole) for x in damage.list_files(self._whole)}
        after = {x.relative_to(copy) for x in damage.list_files(copy)}
        gone = sorted(str(x) for x in before - after if str(x) not in trial.fault)
        return _with_loss(trial, gone)


class StoredGraph(StoredIndex):
    """Graph of an index, which is derived from its batches."""

    kind = "hnsw"

    def prepare(self, samples: Samples, folder: pathlib.Path) -> None:
        """Adds batches, and builds the graph with one thread, which fixes it."""
        import faiss

        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)
        try:
            super().prepare(samples, folder)
        finally:
            faiss.omp_set_num_threads(threads)

    def files(self, folder: pathlib.Path) -> list[pathlib.Path]:
        """Returns the graph's file."""
        return sorted(folder.glob("graph*"))


def _with_loss(trial: Trial, gone: list[str]) -> Trial:
    if not gone or trial.outcome == Outcome.TRACEBACK:
        return trial
    detail = f"{', '.join(gone)} deleted by the reading; {trial.detail}"
    return Trial(trial.fault, Outcome.SILENT, detail)


def _rows(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((_ROWS, _DIM)).astype("float32")
