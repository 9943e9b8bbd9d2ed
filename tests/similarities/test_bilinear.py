import numpy as np
import pytest

from deeprank_jax import similarities
from deeprank_jax.baselines import oasis
from deeprank_jax.errors import ConfigError, DataError
from deeprank_jax.similarities.pairs import LabelledPairs


def create_embeddings():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 8)
    return rng.normal(size=(6, 5))[labels] + rng.normal(size=(48, 5)), labels


def train(**options):
    rows, labels = create_embeddings()
    similarity = similarities.create_learned(
        "bilinear", {"steps": 5, "batch_size": 40, **options}
    )
    return similarity, similarities.train(similarity, rows, labels, seed=3)


@pytest.mark.parametrize("symmetric", [False, True])
def test_it_is_oasis_on_unit_vectors(symmetric):
    rows, labels = create_embeddings()
    similarity, metrics = train(symmetric=symmetric, aggressiveness=0.5)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    rng, pairs = np.random.default_rng([3, 2]), LabelledPairs(labels)
    expected = oasis.train_oasis(
        units,
        [pairs.draw_triplets(rng, 40) for _ in range(5)],
        aggressiveness=0.5,
        symmetric=symmetric,
    )
    weights = similarity.arrays()["weights"]
    np.testing.assert_allclose(weights, expected.weights, atol=1e-12)
    assert np.abs(weights - np.eye(5)).max() > 0.1
    a, b = rows[:20], rows[20:40]
    by_hand = [
        float(x @ weights @ y) for x, y in zip(units[:20], units[20:40], strict=True)
    ]
    np.testing.assert_allclose(similarity(a, b), by_hand, atol=1e-12)
    is_symmetric = np.allclose(similarity(a, b), similarity(b, a), atol=1e-12)
    assert is_symmetric == symmetric
    assert metrics == {"loss_share": expected.loss_share[-1]}


def test_it_is_as_before_after_it_is_restored():
    rows, _ = create_embeddings()
    similarity, _ = train()
    restored = similarities.create_learned("bilinear")
    with pytest.raises(DataError, match="has not been trained"):
        restored(rows, rows)
    restored.restore(similarity.arrays(), 5)
    np.testing.assert_array_equal(restored(rows, rows), similarity(rows, rows))
    with pytest.raises(DataError, match="embeddings of 5 numbers, and these have 4"):
        restored(rows[:, :4], rows[:, :4])
    with pytest.raises(ValueError, match=r"weights is \[5, 5\], not of 6"):
        restored.restore(similarity.arrays(), 6)
    with pytest.raises(ValueError, match="not the arrays of OASIS"):
        restored.restore({}, 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "similarity.steps must be at least 1, got 0"),
        ({"aggressiveness": 0.0}, "similarity.aggressiveness must be above 0, got 0.0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        train(**options)
