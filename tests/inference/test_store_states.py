"""Any order of embedding, stopping and damaging: tables and origins stay right."""

import pathlib
import random
import tempfile
from unittest import mock

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
import numpy as np
import pytest

from deeprank_jax.data.records import Records
from deeprank_jax.inference import embedding_table, index_origins

SETTINGS = settings(max_examples=25, stateful_step_count=15, deadline=None)
# Few, so that a table is often begun again that was stopped.
NUMS = st.sampled_from([3, 13])
SOURCES = st.sampled_from(["/photos", "/more photos", "tfds:emoji/test"])


class FakeModel:
    """A model whose embedding of a record is its number, by the seed of the model."""

    embedding_dim = 2

    def __init__(self, seed):
        self.fingerprint = f"model {seed}"
        self.seed = seed


def embed_parts(model, records, indices, part_size, **options):
    for start in range(0, len(indices), part_size):
        part = indices[start : start + part_size]
        readable = part[part % 5 != 3]
        rows = np.stack([readable, np.full_like(readable, model.seed)], axis=1)
        yield rows.astype(np.float32), readable


def create_records(num):
    return Records(
        name="photos",
        labels=np.zeros((num, 1), np.int32),
        level_names=("class",),
        label_names=(("a",),),
        read=lambda index: b"",
        describe=lambda index: f"{index}.png",
    )


class TableStates(RuleBasedStateMachine):
    """Tables of one name, written whole or stopped after some parts."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.out = pathlib.Path(self.folder.name) / "table.parquet"
        self.expected = self.stopped = None
        self.patches = [
            mock.patch.object(embedding_table, "embed_parts", embed_parts),
            mock.patch.object(embedding_table, "_PART_SIZE", 4),
        ]
        for patch in self.patches:
            patch.start()

    @rule(seed=st.integers(0, 1), num=NUMS)
    def embed(self, seed, num):
        model, records = FakeModel(seed), create_records(num)
        embedding_table.embed_to_file(model, records, self.out)
        readable = [index for index in range(num) if index % 5 != 3]
        self.expected = (
            [f"{index}.png" for index in readable],
            [[float(index), float(seed)] for index in readable],
            model.fingerprint,
        )
        assert not self.parts()

    @rule(seed=st.integers(0, 1), num=NUMS, after=st.integers(0, 3))
    def stop(self, seed, num, after):
        """Before the part with a number, or before the parts are joined."""
        write = embedding_table._write
        left = [after]

        def stop(embeddings, indices, path):
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            write(embeddings, indices, path)

        self.stopped = seed, num
        with (
            mock.patch.object(embedding_table, "_write", stop),
            mock.patch.object(embedding_table, "_join", side_effect=KeyboardInterrupt),
            pytest.raises(KeyboardInterrupt),
        ):
            embedding_table.embed_to_file(
                FakeModel(seed), create_records(num), self.out
            )

    @rule(seeds=st.lists(st.integers(0, 10**6), max_size=2))
    def go_on(self, seeds):
        """The same command again, after damages."""
        for seed in seeds:
            self.damage_a_part(seed)
        if self.stopped is not None:
            self.embed(*self.stopped)

    @rule(seed=st.integers(0, 10**6))
    def damage_a_part(self, seed):
        rng = random.Random(seed)
        if parts := self.parts():
            path = rng.choice(parts)
            content = bytearray(path.read_bytes())
            if content:
                content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
            path.write_bytes(content[: rng.choice((None, None, 9, 0))])

    def parts(self):
        return sorted(self.out.with_name("table.parquet.parts").glob("*"))

    @invariant()
    def is_the_last_whole_table(self):
        if self.expected is None:
            assert not self.out.exists()
            return
        paths, labels, embeddings, model = embedding_table.read_table(self.out)
        assert (paths, embeddings.tolist(), model) == self.expected
        assert labels == ["a"] * len(paths)

    def teardown(self):
        for patch in self.patches:
            patch.stop()
        self.folder.cleanup()


class OriginsStates(RuleBasedStateMachine):
    """Models and sources of an index, and a dictionary that holds the same."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.model, self.sources = None, {}

    @rule(
        model=st.sampled_from(["/models/a", "/models/b"]),
        source=st.none() | SOURCES,
        feature=st.sampled_from(["", "label"]),
    )
    def write(self, model, source, feature):
        index_origins.write_origins(
            self.folder.name,
            model=model,
            source=source,
            data_dir="/data",
            label_feature=feature,
        )
        self.model = model
        if source is not None:
            options = {"data_dir": "/data", "label_feature": feature}
            self.sources[source] = options

    @invariant()
    def holds_the_same(self):
        if self.model is not None:
            origins = index_origins.read_origins(self.folder.name)
            assert (origins.model, origins.sources) == (self.model, self.sources)
            assert list(origins.sources) == list(self.sources)

    def teardown(self):
        self.folder.cleanup()


TableStates.TestCase.settings = OriginsStates.TestCase.settings = SETTINGS
test_a_table_in_any_order = TableStates.TestCase
test_origins_in_any_order = OriginsStates.TestCase
