import itertools

import numpy as np
import pytest

from deeprank_jax.baselines import oasis
from deeprank_jax.relevance import SameClass
from deeprank_jax.sampling import count_candidates


def create_features(size=60, dim=7, seed=0):
    features = np.random.default_rng(seed).normal(size=(size, dim))
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def create_triplets(size=60, num=700, seed=1):
    rng = np.random.default_rng(seed)
    return np.stack([rng.choice(size, 3, replace=False) for _ in range(num)])


def train_by_loop(features, triplets, aggressiveness, symmetric):
    """One triplet after the other, as the paper's Figure 1 has it."""
    weights = np.eye(features.shape[1])
    losses, bounded = [], []
    for anchor, positive, negative in triplets:
        query = features[anchor]
        near = query @ weights @ features[positive]
        loss = max(0.0, 1.0 - near + query @ weights @ features[negative])
        losses.append(loss)
        outer = np.outer(query, features[positive] - features[negative])
        if symmetric:
            outer = (outer + outer.T) / 2
        if loss and outer.any():
            step = loss / np.sum(outer**2)
            bounded.append(step > aggressiveness)
            weights = weights + min(aggressiveness, step) * outer
    return weights, np.array(losses), bounded


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("aggressiveness", [0.3, 1.5])
def test_it_is_the_sequential_algorithm(symmetric, aggressiveness):
    features, triplets = create_features(), create_triplets()
    # What is equal teaches nothing, and must not divide by 0.
    triplets[5, 2] = triplets[5, 1]
    expected, losses, bounded = train_by_loop(
        features, triplets, aggressiveness, symmetric
    )
    # Both sides of the hinge and of the bound, often.
    assert 0.1 < np.mean(losses > 0) < 0.95
    assert 0.03 < np.mean(bounded) < 0.97
    found = oasis.train_oasis(
        features,
        [triplets[:300], triplets[:0], triplets[300:]],
        aggressiveness=aggressiveness,
        symmetric=symmetric,
    )
    np.testing.assert_allclose(found.weights, expected, rtol=0, atol=1e-12)
    assert (found.num_triplets, found.num_updates) == (700, len(bounded))
    shares = [np.mean(losses[:300] > 0), np.mean(losses[300:] > 0)]
    np.testing.assert_allclose(found.loss_share, shares, rtol=1e-12)
    assert (found.weights == found.weights.T).all() == symmetric


def test_what_is_learned_orders_more_triplets_than_before():
    """Classes lie along one dimension; another, longer one is noise."""
    rng = np.random.default_rng(0)
    classes = np.repeat(np.arange(8), 10)
    features = np.stack([np.cos(classes), np.sin(classes), *rng.normal(size=(6, 80))])
    features = (features / np.linalg.norm(features, axis=0)).T
    candidates = count_candidates(classes[:, None], np.zeros(80, int), np.full(80, 9.0))
    options = dict(seed=0, batch_size=500, min_relevance_gap=0.1)
    batches = list(oasis.draw_batches(candidates, SameClass(), 6, **options))
    drawn = classes[np.concatenate(batches)]
    assert [len(batch) for batch in batches] == [500] * 6
    assert (drawn[:, 0] == drawn[:, 1]).all()
    assert (drawn[:, 0] != drawn[:, 2]).all()
    assert (batches[0] != batches[1]).any()
    again = next(iter(oasis.draw_batches(candidates, SameClass(), 1, **options)))
    np.testing.assert_array_equal(again, batches[0])
    found = oasis.train_oasis(features, batches[:5], aggressiveness=0.1)
    before = features @ features.T
    anchors, positives, negatives = batches[5].T
    share = np.mean(before[anchors, positives] > before[anchors, negatives])
    assert share < 0.9 < found.order_share(features, batches[5])
    assert found.loss_share[-1] < 0.7 * found.loss_share[0]


def create_oasis(dim=7, seed=3):
    weights = np.random.default_rng(seed).normal(size=(dim, dim))
    return oasis.Oasis(
        weights=weights,
        loss_share=np.array([0.5, 0.25]),
        num_triplets=8,
        num_updates=3,
        aggressiveness=0.1,
    )


def test_similarity_is_bilinear():
    found, features = create_oasis(), create_features(5)
    pairs = list(itertools.product(range(5), repeat=2))
    expected = [
        sum(
            features[i, k] * found.weights[k, m] * features[j, m]
            for k in range(7)
            for m in range(7)
        )
        for i, j in pairs
    ]
    one, two = np.array(pairs).T
    np.testing.assert_allclose(
        found.similarity(features[one], features[two]), expected, rtol=1e-12
    )
    table = found.similarity(features[:, None], features[None])
    np.testing.assert_allclose(table.ravel(), expected, rtol=1e-12)
    assert not np.allclose(table, table.T)


def test_order_share_counts_ties_as_wrong():
    found = create_oasis()
    features = create_features(4)
    first = found.similarity(features[0], features[1])
    order = (1, 2) if first > found.similarity(features[0], features[2]) else (2, 1)
    triplets = np.array([[0, *order], [0, *order[::-1]], [0, 1, 1], [0, *order]])
    assert found.order_share(features, triplets) == 0.5
    assert found.order_share(features, triplets[:0]) == 0.0


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e3])
def test_embeddings_rank_by_distance_as_by_similarity(scale):
    found = create_oasis()
    # Of many lengths, which a plain distance would rank by.
    lengths = np.random.default_rng(5).uniform(0.1, 3.0, (60, 1))
    features = scale * lengths * create_features()
    features[7] = 0.0
    queries, gallery = found.as_embeddings(features)
    assert queries.shape == gallery.shape == (60, 8)
    assert queries.dtype == gallery.dtype == np.float32
    similarities = found.similarity(features[:, None], features[None])
    gaps = queries[:, None].astype(np.float64) - gallery
    distances = np.square(gaps).sum(axis=2)
    others = np.arange(60) != 7
    np.testing.assert_array_equal(
        np.argsort(distances[others]), np.argsort(-similarities[others])
    )
    plain = np.square(features[:, None] - features).sum(axis=2)
    assert (np.argmin(plain, axis=1) != np.argmax(similarities, axis=1)).any()
    np.testing.assert_allclose(distances[7], 1.0, rtol=1e-6)


def test_features_that_are_all_zero_are_all_equally_far():
    queries, gallery = create_oasis().as_embeddings(np.zeros((3, 7)))
    assert not queries.any()
    assert not gallery.any()


def test_the_aggressiveness_that_orders_most_is_chosen():
    features, triplets = create_features(), create_triplets(num=400)
    batches, judged = [triplets[:100], triplets[100:300]], triplets[300:]
    grid = (1.0, 1e-9, 0.1)
    best, shares = oasis.choose_oasis(
        features, batches, judged, aggressivenesses=grid, symmetric=True
    )
    expected = {}
    for value in grid:
        found = oasis.train_oasis(
            features, batches, aggressiveness=value, symmetric=True
        )
        expected[value] = found.order_share(features, judged)
    assert shares == expected
    assert len(set(shares.values())) == 3
    assert shares[best.aggressiveness] == max(shares.values())
    # Steps that are too small to change the order of anything: all are equal.
    tiny = (3e-9, 1e-9, 2e-9)
    best, shares = oasis.choose_oasis(features, batches, judged, aggressivenesses=tiny)
    assert len(set(shares.values())) == 1
    assert best.aggressiveness == 1e-9


def test_what_was_saved_is_loaded(tmp_path):
    found, path = create_oasis(), tmp_path / "new" / "oasis.npz"
    found.save(path)
    loaded = oasis.load_oasis(path)
    np.testing.assert_array_equal(loaded.weights, found.weights)
    np.testing.assert_array_equal(loaded.loss_share, found.loss_share)
    assert (loaded.num_triplets, loaded.num_updates) == (8, 3)
    assert loaded.aggressiveness == 0.1
    assert [file.name for file in path.parent.iterdir()] == ["oasis.npz"]


@pytest.mark.parametrize("damage", ["text", "empty", "cut", "npy", "other"])
def test_a_file_of_another_kind_is_refused(damage, tmp_path):
    path = tmp_path / "oasis.npz"
    create_oasis().save(path)
    if damage == "npy":
        with path.open("wb") as file:
            np.save(file, np.ones(3))
    elif damage == "other":
        np.savez(path, weights=np.ones((2, 2)))
    else:
        whole = path.read_bytes()
        path.write_bytes({"text": b"W", "empty": b"", "cut": whole[:-50]}[damage])
    with pytest.raises(ValueError, match=r"oasis\.npz: not a file of OASIS"):
        oasis.load_oasis(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(features=np.full((4, 2), np.nan)), "4 of 4 features are not finite"),
        (dict(features=np.zeros((0, 2))), r"at least one row, got \(0, 2\)"),
        (dict(features=np.zeros(4)), r"features must be \[N, D\]"),
        (dict(aggressiveness=0), "must be a number above 0, got 0"),
        (dict(aggressiveness=-1.0), "must be a number above 0, got -1"),
        (dict(aggressiveness=np.nan), "must be a number above 0, got nan"),
        (dict(aggressiveness=np.inf), "must be a number above 0, got inf"),
        (dict(triplets=[np.array([[0, 1, 4]])]), "rows 0 to 4, there are 4 features"),
        (dict(triplets=[np.array([[0, -1, 2]])]), "rows -1 to 2"),
        (dict(triplets=[np.array([[0.0, 1, 2]])]), r"ints \[B, 3\], got float64"),
        (dict(triplets=[np.array([[0, 1]])]), r"ints \[B, 3\], got int64 \(1, 2\)"),
        (dict(triplets=[]), "There are no triplets to learn from"),
        (dict(triplets=[np.zeros((0, 3), int)]), "There are no triplets to learn"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(changes, message):
    values = dict(
        features=np.ones((4, 2)), triplets=[np.array([[0, 1, 2]])], aggressiveness=0.1
    )
    with pytest.raises(ValueError, match=message):
        oasis.train_oasis(**(values | changes))


def test_a_choice_from_or_by_nothing_is_refused():
    features, triplets = create_features(), create_triplets(num=10)
    with pytest.raises(ValueError, match="aggressivenesses is empty"):
        oasis.choose_oasis(features, [triplets], triplets, aggressivenesses=())
    with pytest.raises(ValueError, match="no validation triplets"):
        oasis.choose_oasis(features, [triplets], triplets[:0])
