"""The rows of the paper's table: all are measured, networks as what they say."""

import numpy as np
import pytest

from deeprank_jax import descriptors
from deeprank_jax.baselines.systems import System
from deeprank_jax.experiments.paper_table import rows as rows_lib
from deeprank_jax.experiments.paper_table import systems

TRAIN = slice(0, 40)


@pytest.fixture
def drawn():
    rng = np.random.default_rng(0)
    batches = [np.stack([rng.permutation(40)[:3] for _ in range(20)])]
    judged = np.stack([40 + rng.permutation(20)[:3] for _ in range(50)])
    return batches, judged


def embed(name, *, logits=False):
    rng = np.random.default_rng(len(name) + 100 * logits)
    x = rng.normal(size=(60, 7 if logits else 5)).astype(np.float32)
    return x * (30.0 if logits else 1.0), np.arange(60) != 4


def test_every_network_row_is_made(drawn):
    visual = System(embeddings=np.ones((60, 2), np.float32), ok=np.ones(60, bool))
    rows = systems.network_rows(embed, visual, *drawn, TRAIN, further=("supcon",))
    told = {n for n, row in rows_lib.ROWS.items() if row.group == "Networks"}
    assert rows.keys() == told | {"supcon"}
    np.testing.assert_array_equal(rows["supcon"].embeddings, embed("supcon")[0])
    classes = rows["softmax_classes"].embeddings.astype(np.float64)
    logits = embed("softmax", logits=True)[0].astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(classes, expected, rtol=1e-4, atol=1e-6)
    said = rows["softmax_logits"].embeddings
    np.testing.assert_allclose(said.sum(axis=1), 0.0, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(said, axis=1), 1.0, rtol=1e-5)
    assert rows["oasis_single_scale"].queries is not None
    for row in rows.values():
        assert np.isfinite(row.embeddings).all()
        assert not row.ok[4]


def test_pixels_are_centred_on_their_split_and_others_left_alone():
    rng = np.random.default_rng(0)
    ok = np.arange(9) != 2
    described = {
        name: System(embeddings=rng.random((9, 4)).astype(np.float32), ok=ok)
        for name in ("pixels", "hog")
    }
    before = described["pixels"].embeddings.copy()
    splits = {"train": slice(0, 4), "validation": slice(4, 4), "test": slice(4, 9)}
    rows = systems.hand_made_rows(described, splits)
    assert rows["hog"] is described["hog"]
    for part in splits["train"], splits["test"]:
        own = before[part][ok[part]]
        expected = own - own.mean(axis=0)
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        found = rows["pixels"].embeddings[part][ok[part]]
        np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(described["pixels"].embeddings, before)


def test_every_descriptor_of_the_table_exists():
    assert set(rows_lib.DESCRIPTORS) <= set(descriptors.DESCRIPTORS)
    assert rows_lib.FIRST in rows_lib.ROWS
    # Table 1 of the paper has 14 rows with both numbers; all are here.
    assert sum(row.paper is not None for row in rows_lib.ROWS.values()) == 14
