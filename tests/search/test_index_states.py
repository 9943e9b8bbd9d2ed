"""Any order of writing, failing, closing and reading: an index is a dictionary."""

import pathlib
import tempfile
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
import numpy as np
import pytest

from deeprank_jax.errors import ArtifactError, DataError
from deeprank_jax.search import store
from deeprank_jax.search.index import VectorIndex

DIM = 3
IDS = st.lists(st.integers(0, 15).map("{}.png".format), max_size=6, unique=True)
LABELS = st.sampled_from(["", "a", "b"])


class IndexStates(RuleBasedStateMachine):
    """A writer, readers of earlier states, and a dictionary that holds the same."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = pathlib.Path(self.folder.name) / "index"
        self.index = VectorIndex.create(self.path, dim=DIM, model_fingerprint="m")
        self.rows, self.readers, self.seed = {}, [], 0

    def draw(self, num):
        self.seed += 1
        # Whole numbers, so that there are ties.
        rng = np.random.default_rng(self.seed)
        return rng.integers(1, 4, (num, DIM)).astype(np.float32)

    @rule(ids=IDS, label=LABELS)
    def add(self, ids, label):
        embeddings = self.draw(len(ids))
        if set(ids) & self.rows.keys():
            with pytest.raises(DataError, match="already"):
                self.index.add(ids, embeddings, [label] * len(ids))
            return
        self.index.add(ids, embeddings, [label] * len(ids))
        self.rows |= {x: (row, label) for x, row in zip(ids, embeddings, strict=True)}

    @rule(ids=IDS)
    def delete(self, ids):
        if set(ids) - self.rows.keys():
            with pytest.raises(DataError, match="are not in"):
                self.index.delete(ids)
            return
        self.index.delete(ids)
        self.rows = {x: row for x, row in self.rows.items() if x not in ids}

    @precondition(lambda self: self.rows)
    @rule(place=st.integers(0, 14), is_moved=st.booleans())
    def replace(self, place, is_moved):
        """Under its old name an image gets a new row, at the end."""
        name = list(self.rows)[place % len(self.rows)]
        self.index.delete([name])
        row, label = self.rows.pop(name)
        row = self.draw(1)[0] if is_moved else row
        self.index.add([name], row[None], [label])
        self.rows[name] = row, label

    @rule(ids=IDS.filter(bool), num_written=st.integers(0, 2))
    def fail(self, ids, num_written):
        """The disk is full after some files: nothing has changed."""
        ids, write = [f"new {x}" for x in ids], store._write
        left, before = [num_written], sorted(self.path.iterdir())

        def fill(path, parts):
            if not left[0]:
                raise OSError(28, "No space left on device", str(path))
            left[0] -= 1
            return write(path, parts)

        with (
            mock.patch.object(store, "_write", fill),
            pytest.raises(ArtifactError, match="No space left"),
        ):
            self.index.add(ids, self.draw(len(ids)))
        assert sorted(self.path.iterdir()) == before

    @rule(is_closed=st.booleans())
    def reopen(self, is_closed):
        """Also after a writer that ended without closing."""
        self.index._store.close() if not is_closed else self.index.close()
        self.index = VectorIndex.open(self.path, writable=True)

    @rule()
    def second_writer(self):
        with pytest.raises(ArtifactError, match="writ"):
            VectorIndex.open(self.path, writable=True)

    @rule()
    def open_reader(self):
        self.readers = [*self.readers[-2:], (VectorIndex.open(self.path), [*self.rows])]

    @precondition(lambda self: self.rows)
    @rule(label=st.sampled_from([None, "a", "b", "c"]), k=st.integers(1, 8))
    def search(self, label, k):
        queries = self.draw(2)
        neighbors = self.index.search(queries, k, labels=label)
        for query, ids, distances in zip(
            queries, neighbors.ids, neighbors.distances, strict=True
        ):
            nearest = sorted(
                (float(np.sum((query - row) ** 2)), place, name)
                for place, (name, (row, of)) in enumerate(self.rows.items())
                if label in (None, of)
            )[:k]
            fill = [None] * (k - len(nearest))
            assert ids == [name for *_, name in nearest] + fill
            expected = [distance for distance, *_ in nearest] + [np.inf] * len(fill)
            np.testing.assert_allclose(distances, expected, rtol=1e-5)

    @invariant()
    def holds_the_same(self):
        assert self.index.ids() == [*self.rows]
        assert len(self.index) == len(self.rows)
        assert self.index.label_names() == {x for _, x in self.rows.values()} - {""}
        for reader, ids in self.readers:
            assert reader.ids() == ids

    def teardown(self):
        self.index.close()
        self.folder.cleanup()


IndexStates.TestCase.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None
)
test_an_index_in_any_order = IndexStates.TestCase
