import pickle

import numpy as np
import pytest

from deeprank_jax.baselines import minhash


def weighted_jaccard(a, b):
    """The sum of the smaller weights over the sum of the larger, column by column."""
    smaller = larger = 0.0
    for x, y in zip(a.tolist(), b.tolist(), strict=True):
        for weight_x, weight_y in ((max(x, 0), max(y, 0)), (max(-x, 0), max(-y, 0))):
            smaller += min(weight_x, weight_y)
            larger += max(weight_x, weight_y)
    return smaller / larger if larger else 1.0


def similarities(a, b):
    return np.array([[weighted_jaccard(x, y) for y in b] for x in a])


def sparse_weights(num=8, dim=12, seed=0):
    rng = np.random.default_rng(seed)
    common = rng.gamma(1.0, size=dim)
    own = rng.gamma(1.0, size=(num, dim)) * (rng.random((num, dim)) < 0.7)
    share = np.linspace(0, 0.9, num)[:, None]
    return (share * common + (1 - share) * own).astype(np.float32)


@pytest.mark.parametrize("signed", [False, True])
def test_share_of_equal_hashes_is_the_similarity(signed):
    features = sparse_weights()
    if signed:
        features = features - 0.4
        assert np.mean(features < 0) > 0.3
    num = 4_000
    hashes = minhash.hash_features(features, num, seed=0)
    expected = similarities(features, features)
    off_diagonal = expected[~np.eye(8, dtype=bool)]
    assert off_diagonal.min() < 0.3
    assert off_diagonal.max() > 0.7
    # Each share is a binomial mean. Of 28 pairs one is beyond 4.5 deviations once in
    # 5,000 seeds.
    deviations = np.sqrt(expected * (1 - expected) / num)
    found = minhash.share_of_equal(hashes, hashes)
    assert (np.abs(found - expected) <= 4.5 * deviations + 1e-12).all()
    # A bound that cannot be passed by chance of being wide.
    assert deviations.max() < 0.009


def test_scale_of_both_does_not_count():
    features = sparse_weights()
    for scale in (1e-3, 50.0):
        hashes = minhash.hash_features(features * np.float32(scale), 2_000, seed=0)
        found = minhash.share_of_equal(hashes, hashes)
        expected = similarities(features, features)
        deviations = np.sqrt(expected * (1 - expected) / 2_000)
        assert (np.abs(found - expected) <= 4.5 * deviations + 1e-12).all()


def test_similarity_falls_with_the_l1_distance():
    features = sparse_weights() - 0.4
    for a in features:
        for b in features:
            similarity = weighted_jaccard(a, b)
            total = np.abs(a).sum() + np.abs(b).sum()
            distance = total * (1 - similarity) / (1 + similarity)
            assert distance == pytest.approx(np.abs(a - b).sum(), abs=1e-4)


def test_rows_without_weight_equal_one_another_alone():
    features = np.concatenate([np.zeros((2, 12), np.float32), sparse_weights(3)])
    hashes = minhash.hash_features(features, 50, seed=0)
    found = minhash.share_of_equal(hashes, hashes)
    np.testing.assert_array_equal(found[:2, :2], 1.0)
    np.testing.assert_array_equal(found[:2, 2:], 0.0)
    empty = minhash.hash_features(np.zeros((2, 0), np.float32), 5, seed=0)
    np.testing.assert_array_equal(empty, -1)


def test_hashes_do_not_depend_on_blocks_or_threads(monkeypatch):
    features = sparse_weights(20) - 0.4
    expected = minhash.hash_features(features, 40, seed=3)
    assert len(np.unique(expected)) > 30
    seen = []

    def progress(blocks):
        for block in blocks:
            seen.append(len(block))
            yield block

    monkeypatch.setattr(minhash, "_BLOCK_VALUES", 3 * 24)
    monkeypatch.setattr(minhash, "_TILE_VALUES", 2 * 24)
    found = minhash.hash_features(features, 40, seed=3, workers=3, progress=progress)
    np.testing.assert_array_equal(found, expected)
    assert seen == [3] * 6 + [2]
    other = minhash.hash_features(features, 40, seed=4)
    assert np.mean(other == expected) < 0.2
    assert minhash.hash_features(features[:0], 40, seed=3).shape == (0, 40)


def test_a_block_holds_few_values(monkeypatch):
    shapes = []
    original = minhash._hash_block

    def hash_block(features, **kwargs):
        shapes.append(features.shape)
        return original(features, **kwargs)

    monkeypatch.setattr(minhash, "_hash_block", hash_block)
    monkeypatch.setattr(minhash, "_BLOCK_VALUES", 1_000)
    minhash.hash_features(np.ones((300, 25), np.float32), 2, seed=0)
    assert sum(rows for rows, _ in shapes) == 300
    assert all(2 * rows * columns <= 1_000 for rows, columns in shapes)


def test_shares_are_counted():
    rng = np.random.default_rng(0)
    a, b = rng.integers(3, size=(4, 7)), rng.integers(3, size=(5, 7))
    expected = [[np.mean(x == y) for y in b] for x in a]
    np.testing.assert_allclose(minhash.share_of_equal(a, b), expected)


def families(num=60, seed=0):
    """Rows of three families, and which each is of."""
    rng = np.random.default_rng(seed)
    which = np.arange(num) % 3
    centers = np.random.default_rng(9).gamma(0.5, size=(3, 20))
    rows = centers[which] * rng.uniform(0.6, 1.4, (num, 20))
    return rows.astype(np.float32), which


def test_dot_products_are_centered_shares():
    features, _ = families(30)
    embed = minhash.fit_l1_hash_kpca(features, num_hashes=400, dim=29)
    kernel = minhash.share_of_equal(embed.hashes, embed.hashes)
    center = np.eye(30) - 1 / 30
    expected = center @ kernel @ center
    assert expected.std() > 0.1
    x = embed(features).astype(np.float64)
    np.testing.assert_allclose(x @ x.T, expected, atol=1e-4)


def test_embeddings_of_others_lie_with_their_family():
    features, which = families()
    embed = minhash.fit_l1_hash_kpca(features, num_hashes=128, dim=8)
    own, (others, family) = embed(features), families(30, seed=1)
    found = embed(others)
    assert found.dtype == np.float32
    assert found.shape == (30, 8)
    distances = np.square(found[:, None] - own[None]).sum(axis=2)
    np.testing.assert_array_equal(which[distances.argmin(axis=1)], family)
    assert embed(others[:0]).shape == (0, 8)
    copy = pickle.loads(pickle.dumps(embed))
    np.testing.assert_array_equal(copy(others, workers=2), found)


def test_the_seed_draws_the_landmarks(monkeypatch):
    features, _ = families()
    fit = lambda seed, **more: minhash.fit_l1_hash_kpca(
        features, num_hashes=64, dim=4, num_landmarks=20, seed=seed, **more
    )
    first = fit(0)
    assert first.hashes.shape == (20, 64)
    leading = minhash.hash_features(features[:20], 64, seed=0)
    assert not np.array_equal(first.hashes, leading)
    np.testing.assert_array_equal(first(features), fit(0, workers=2)(features))
    assert np.abs(first(features) - fit(1)(features)).max() > 0.01
    expected = first(features)
    monkeypatch.setattr(minhash, "_BLOCK_VALUES", 20 * 7)
    np.testing.assert_allclose(first(features), expected, atol=1e-6)


def test_bad_input_is_refused():
    features, _ = families(30)
    fit = minhash.fit_l1_hash_kpca
    with pytest.raises(ValueError, match="dim=30 needs more than 30 training records"):
        fit(features, dim=30)
    with pytest.raises(ValueError, match="at least 1, got 0 and 512"):
        fit(features, dim=0)
    with pytest.raises(ValueError, match="at least 1, got 4 and 0"):
        fit(features, dim=4, num_hashes=0)
    with pytest.raises(ValueError, match="differ in 2 components, dim=8 asks for more"):
        fit(np.repeat(np.eye(3), 5, axis=0), dim=8)
    features[3, 4] = np.nan
    with pytest.raises(ValueError, match="values that are not finite: leave out"):
        fit(features, dim=4)
    with pytest.raises(ValueError, match=r"\[N, D\], got \(30,\): leave"):
        minhash.hash_features(features[:, 0], 3, seed=0)
    embed = fit(families(30)[0], dim=4)
    with pytest.raises(ValueError, match="of 20 features, got 19: give those"):
        embed(families(30)[0][:, 1:])
