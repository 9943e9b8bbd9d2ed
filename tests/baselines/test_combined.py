"""Rows made of others learn from training records, and choose on validation."""

import numpy as np
import pytest

from deeprank_jax.baselines import combined
from deeprank_jax.baselines.systems import System

TRAIN, VALIDATION, TEST = slice(0, 60), slice(60, 80), slice(80, 120)


def create_classes(seed=0):
    """Ten classes; the first 4 columns tell them, the other 8 do not."""
    rng = np.random.default_rng(seed)
    classes = np.arange(120) % 10
    told = rng.normal(size=(10, 4))[classes] + 0.3 * rng.normal(size=(120, 4))
    return classes, told.astype(np.float32), rng.normal(size=(120, 8), scale=2.0)


def draw(classes, rows, num, seed=0):
    """Triplets of one split: positives of the anchor's class, negatives of another."""
    rng, found = np.random.default_rng(seed), []
    members = np.arange(rows.start, rows.stop)
    while len(found) < num:
        a, p, n = rng.choice(members, 3, replace=False)
        if classes[a] == classes[p] != classes[n]:
            found.append((a, p, n))
    return np.array(found)


def ordered(system, triplets):
    queries = system.embeddings if system.queries is None else system.queries
    a = queries[triplets[:, 0]].astype(np.float64)
    near, far = (
        np.square(a - system.embeddings[triplets[:, i]]).sum(axis=1) for i in (1, 2)
    )
    return np.mean(near < far)


def test_the_golden_feature_weighs_what_tells_more():
    classes, told, noise = create_classes()
    ok = np.arange(120) != 7
    described = {
        "told": System(embeddings=told, ok=ok),
        "noise": System(embeddings=noise, ok=np.ones(120, bool)),
    }
    rated = np.concatenate([draw(classes, TRAIN, 300), draw(classes, TEST, 100)])
    system, learned = combined.golden_feature(described, rated, TRAIN)
    assert learned.weights["told"] > 5 * learned.weights["noise"]
    np.testing.assert_array_equal(system.ok, ok)
    judged = draw(classes, TEST, 200, seed=1)
    assert ordered(system, judged) > ordered(described["noise"], judged) + 0.2


def test_hashes_of_few_records_have_few_dimensions():
    classes, told, _ = create_classes()
    ok = np.arange(120) >= 10
    hashed = combined.l1_hash_kpca(System(embeddings=told, ok=ok), TRAIN)
    assert hashed.embeddings.shape == (120, 25)
    np.testing.assert_array_equal(hashed.ok, ok)
    judged = draw(classes, TEST, 200)
    assert ordered(hashed, judged) > 0.75


def test_oasis_learns_from_training_and_ranks_as_its_similarity():
    classes, told, noise = create_classes()
    features = System(
        embeddings=np.concatenate([told, noise], axis=1).astype(np.float32) + 5.0,
        ok=np.arange(120) != 3,
    )
    triplets = [draw(classes, TRAIN, 500, seed=i) for i in range(4)]
    judged = draw(classes, VALIDATION, 100)
    system, learned = combined.oasis(features, triplets, judged, TRAIN)
    used = np.concatenate(triplets)
    assert learned.num_triplets == np.sum(~np.any(used == 3, axis=1))
    assert system.queries is not None
    held_out = draw(classes, TEST, 400, seed=1)
    centred = features.embeddings - features.embeddings[TRAIN].mean(axis=0)
    before = ordered(System(embeddings=centred, ok=features.ok), held_out)
    assert ordered(system, held_out) > before + 0.04


@pytest.mark.parametrize("swap", [False, True])
def test_a_join_gives_more_to_what_orders_more(swap):
    classes, told, noise = create_classes()
    ok = np.arange(120) != 90
    parts = [
        System(embeddings=told, ok=ok),
        System(embeddings=noise, ok=np.ones(120, bool)),
    ]
    parts = parts[::-1] if swap else parts
    judged = draw(classes, VALIDATION, 200)
    joined = combined.join(*parts, judged)
    assert joined.embeddings.shape == (120, 12)
    lengths = np.linalg.norm(joined.embeddings, axis=1)
    np.testing.assert_allclose(lengths, 1.0, rtol=1e-5)
    np.testing.assert_array_equal(joined.ok, ok)
    width = parts[0].embeddings.shape[1]
    first = np.square(joined.embeddings[0, :width]).sum()
    assert first < 0.5 if swap else first > 0.5
    assert ordered(joined, judged) >= ordered(parts[swap], judged) - 0.02


def test_a_join_needs_something_to_choose_by():
    _, told, noise = create_classes()
    bad = np.arange(120) >= 80
    parts = [System(embeddings=x.astype(np.float32), ok=bad) for x in (told, noise)]
    with pytest.raises(ValueError, match="no validation triplets to choose by"):
        combined.join(*parts, np.array([[60, 61, 62]]))
