import json

import numpy as np
import pytest

from deeprank_jax.relevance.golden import feature_bank, learning, max_margin


def rate(rng, wanted, num=4000, noise=0.3):
    """Gaps of triplets as a person with these weights, and some doubt, orders them."""
    gaps = rng.normal(size=(num, len(wanted)))
    right = gaps @ wanted + noise * rng.normal(size=num)
    return gaps * np.sign(right)[:, None]


def test_known_weights_are_recovered():
    wanted = np.array([3.0, 1.0, 0.0, 0.5])
    gaps = rate(np.random.default_rng(0), wanted)
    found = max_margin.learn_weights(gaps, 1e-4)
    assert (found >= 0).all()
    cosine = found @ wanted / np.linalg.norm(found) / np.linalg.norm(wanted)
    assert cosine > 0.995


def test_a_feature_that_disagrees_has_weight_zero():
    gaps = rate(np.random.default_rng(1), np.array([1.0, -1.0, 0.5]))
    found = max_margin.learn_weights(gaps, 1e-4)
    assert found[1] == 0.0
    assert found[0] > found[2] > 0


@pytest.mark.parametrize("penalty", [1e-4, 0.1, 10.0])
def test_weights_are_the_minimum(penalty):
    gaps = rate(np.random.default_rng(2), np.array([2.0, -1.0, 0.1, 0.0, 1.0]), 500)
    found = max_margin.learn_weights(gaps, penalty)

    def objective(weights):
        hinge = [max(0.0, 1 - row @ weights) ** 2 for row in gaps]
        return penalty / 2 * sum(weights**2) + np.mean(hinge)

    least = objective(found)
    assert 0 < found.min() or found[1] == 0
    for feature in range(5):
        for step in (1e-2, -1e-2, 1e-3, -1e-3):
            other = found.copy()
            other[feature] = max(0.0, other[feature] + step)
            if other[feature] != found[feature]:
                assert objective(other) > least


def test_features_that_never_agree_are_refused():
    gaps = -np.abs(np.random.default_rng(3).normal(size=(50, 3)))
    with pytest.raises(ValueError, match=r"none of the 3 features .* 50 triplets"):
        max_margin.learn_weights(gaps, 0.1)


def test_the_folds_hold_whole_anchors():
    # Each anchor has a feature of its own, which a triplet of it elsewhere would teach.
    anchors = np.arange(20).repeat(4)
    gaps = np.eye(20)[anchors]
    options = {"rng": np.random.default_rng(0), "penalties": (1e-3, 1e-2, 10.0)}
    assert max_margin.choose_penalty(gaps, anchors, **options) == 10.0
    shared = max_margin.choose_penalty(gaps, np.arange(80), **options)
    assert shared == 1e-3


def test_cross_validation_needs_two_anchors():
    gaps = np.ones((4, 2))
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="have 1 anchors"):
        max_margin.choose_penalty(gaps, np.zeros(4), rng=rng)
    assert max_margin.choose_penalty(gaps, np.arange(4) // 2, rng=rng) > 0


def test_agreement_and_its_interval_by_brute_force():
    rng = np.random.default_rng(4)
    anchors = rng.integers(0, 12, 200) * 7
    # Anchors differ, so that drawing triplets instead would be too sure.
    gaps = rng.normal(size=200) + 2.0 * np.sin(anchors)
    others = rng.normal(size=200)
    gaps[:5] = 0.0
    samples = max_margin.bootstrap_weights(anchors, rng, 4000)
    found = max_margin.agreement(gaps, samples)
    gain = max_margin.difference(gaps, others, samples)
    assert found["agreement"] == sum(gap > 0 for gap in gaps) / 200
    names, shares, gains = sorted(set(anchors.tolist())), [], []
    for _ in range(2000):
        drawn = rng.choice(names, len(names))
        rows = np.concatenate([np.flatnonzero(anchors == name) for name in drawn])
        shares.append(np.mean(gaps[rows] > 0))
        gains.append(np.mean(gaps[rows] > 0) - np.mean(others[rows] > 0))
    low, high = np.percentile(shares, (2.5, 97.5))
    assert high - low > 0.2
    np.testing.assert_allclose([found["low"], found["high"]], [low, high], atol=0.02)
    np.testing.assert_allclose(
        [gain["low"], gain["high"]], np.percentile(gains, (2.5, 97.5)), atol=0.02
    )


def create_features(rng, num=300):
    """Two features that matter, of unequal size, and the truth they come from."""
    truth = rng.normal(size=(num, 3))
    mixed = truth[:, :2] @ rng.normal(size=(2, 90)) + 0.05 * rng.normal(size=(num, 90))
    return {"long": 30 * mixed, "short": truth[:, 2:], "noise": rng.random((num, 5))}


def create_bank(rng, **options):
    features = create_features(rng)
    ok = np.ones(300, bool)
    return features, feature_bank.create_bank(features, np.arange(200), ok, **options)


def test_the_bank_is_short_and_on_one_scale():
    features, bank = create_bank(np.random.default_rng(0), max_dims=4)
    assert {k: x.shape[1] for k, x in bank.values.items()} == {
        "long": 4,
        "short": 1,
        "noise": 4,
    }
    for name, values in bank.values.items():
        assert values.dtype == np.float32
        train = values[:200].astype(float)
        block = np.sum((train[:, None] - train[None]) ** 2, axis=2)
        assert block.sum() / (200 * 199) == pytest.approx(1.0, rel=0.05)
        centered = features[name][:200] - features[name][:200].mean(axis=0)
        variance = np.linalg.svd(centered, compute_uv=False) ** 2
        kept = variance[: values.shape[1]].sum() / variance.sum()
        assert bank.explained[name] == pytest.approx(kept, rel=1e-3)
    assert bank.explained["long"] > 0.99 > bank.explained["noise"]


def test_other_records_do_not_shape_the_bank():
    features = create_features(np.random.default_rng(0))
    changed = {k: np.concatenate([x[:200], 9 * x[200:]]) for k, x in features.items()}
    ok, fitted = np.arange(300) != 250, np.arange(200)
    bank = feature_bank.create_bank(features, fitted, np.ones(300, bool))
    other = feature_bank.create_bank(changed, fitted, ok)
    for name, values in bank.values.items():
        np.testing.assert_allclose(other.values[name][:200], values[:200], atol=1e-5)
        assert np.abs(other.values[name][200:] - values[200:]).max() > 1
        # A record that could not be read lies in the middle.
        assert not other.values[name][250].any()
        assert values[250].any()


def test_distances_of_joined_features_are_the_weighted_sum():
    rng = np.random.default_rng(1)
    _, bank = create_bank(rng)
    triplets = rng.integers(0, 300, (40, 3))
    weights = np.array([0.5, 0.0, 2.0])
    joined = bank.join(weights).astype(float)
    assert joined.shape[1] == 64 + 5
    for row, gap in zip(triplets, bank.gaps(triplets), strict=True):
        distance = lambda x, i, j: sum((x[i].astype(float) - x[j]) ** 2)
        for values, found in zip(bank.values.values(), gap, strict=True):
            expected = distance(values, *row[[0, 2]]) - distance(values, *row[[0, 1]])
            assert found == pytest.approx(expected, abs=1e-4)
        golden = distance(joined, *row[[0, 2]]) - distance(joined, *row[[0, 1]])
        assert gap @ weights == pytest.approx(golden, abs=1e-4)


def test_features_that_tell_nothing_apart_are_refused():
    features = {"good": np.eye(5), "flat": np.ones((5, 3))}
    with pytest.raises(ValueError, match="feature flat is the same for all 4"):
        feature_bank.create_bank(features, np.arange(4), np.ones(5, bool))
    with pytest.raises(
        ValueError, match="at least 2 training records with a readable image, got 1"
    ):
        feature_bank.create_bank(features, np.arange(1), np.ones(5, bool))


def test_triplets_are_split_by_their_anchors():
    is_train = np.arange(10) < 6
    rows = [[0, 1, 2], [1, 2, 3], [0, 7, 2], [8, 1, 2], [9, 7, 8]]
    rng = np.random.default_rng(0)
    train, test = learning.split_triplets(np.array(rows), is_train, rng)
    assert train.tolist() == rows[:2]
    assert test.tolist() == rows[3:]


def test_a_fifth_of_the_anchors_is_held_out_where_all_are_training_records():
    rng = np.random.default_rng(0)
    triplets = np.stack([np.arange(60) % 30, np.arange(60), np.arange(60) + 1], axis=1)
    is_train = np.ones(61, bool)
    train, test = learning.split_triplets(triplets, is_train, rng)
    assert (len(train), len(test)) == (48, 12)
    assert not set(train[:, 0]) & set(test[:, 0])
    few = triplets[:3]
    train, test = learning.split_triplets(few, is_train, rng)
    assert (len(train), len(test)) == (2, 1)
    with pytest.raises(ValueError, match="2 anchors; at least 3"):
        learning.split_triplets(few[:2], is_train, rng)


def rated(rng, bank, weights, num=3000):
    triplets = rng.integers(0, 300, (num, 3))
    # As those of simulated and real files: of one split.
    triplets[: num // 2] %= 200
    triplets[num // 2 :] = 200 + triplets[num // 2 :] % 100
    triplets = triplets[np.array([len(set(row)) == 3 for row in triplets.tolist()])]
    swap = bank.gaps(triplets) @ weights < 0
    triplets[swap, 1:] = triplets[swap, :0:-1]
    return triplets


def test_learning_beats_equal_weights():
    rng = np.random.default_rng(5)
    _, bank = create_bank(rng)
    triplets = rated(rng, bank, np.array([1.0, 3.0, 0.0]))
    is_train = np.arange(300) < 200
    golden = learning.learn_golden_feature(bank, triplets, is_train)
    found = {name: x["agreement"] for name, x in golden.agreement.items()}
    assert list(found) == [
        *("long", "short", "noise"),
        *("equal weights", "learned weights", "learned - equal"),
    ]
    assert found["learned weights"] > 0.97
    assert found["equal weights"] < 0.9
    gain = found["learned weights"] - found["equal weights"]
    assert found["learned - equal"] == pytest.approx(gain)
    ratio = golden.weights["short"] / golden.weights["long"]
    assert 2.5 < ratio < 3.5
    learned = triplets[(triplets < 200).all(axis=1)]
    near = [np.sum((golden.values[a] - golden.values[p]) ** 2) for a, p, _ in learned]
    assert golden.scale == pytest.approx(np.median(near), rel=1e-4)
    test = triplets[triplets[:, 0] >= 200]
    right = 0
    for row in test:
        anchor, positive, negative = golden.values[row].astype(float)
        near = np.sum((anchor - positive) ** 2)
        right += near < np.sum((anchor - negative) ** 2)
    assert found["learned weights"] == pytest.approx(right / len(test), abs=1e-3)
    assert golden.counts["triplets_test"] == len(test)
    metadata = json.loads(json.dumps(golden.metadata()))
    assert metadata["weights"] == golden.weights
    assert "values" not in metadata


def test_triplets_that_cannot_be_used_are_counted():
    rng = np.random.default_rng(8)
    features = create_features(rng)
    ok = ~np.isin(np.arange(300), (3, 250))
    bank = feature_bank.create_bank(features, np.arange(4, 200), ok)
    triplets = rated(rng, bank, np.array([1.0, 3.0, 0.0]))
    hit = np.isin(triplets, (3, 250)).any(axis=1)
    assert 10 < hit.sum() < len(triplets) / 10
    is_train = np.arange(300) < 200
    golden = learning.learn_golden_feature(bank, triplets, is_train)
    assert golden.counts["triplets_left_out"] == hit.sum()
    other = learning.learn_golden_feature(bank, triplets[~hit], is_train)
    assert other.weights == golden.weights


def test_the_table_shows_each_feature():
    rng = np.random.default_rng(6)
    _, bank = create_bank(rng)
    triplets = rated(rng, bank, np.array([1.0, 3.0, 0.0]), 400)
    golden = learning.learn_golden_feature(bank, triplets, np.arange(300) < 200)
    lines = learning.format_table(golden).splitlines()
    assert len(lines) == 8
    row = lines[2].split()
    assert row[:4] == ["short", f"{golden.weights['short']:.3f}", "1", "100.0%"]
    assert row[4] == f"{golden.agreement['short']['agreement']:.3f}"
    assert len({line.rindex(" to ") for line in lines[1:-1]}) <= 2
    assert "0 left out" in lines[-1]


def test_positives_that_are_copies_are_refused():
    x = np.random.default_rng(7).normal(size=(30, 4)).repeat(2, axis=0)
    bank = feature_bank.create_bank({"x": x}, np.arange(60), np.ones(60, bool))
    triplets = np.array([[i, i + 1, (i + 7) % 60] for i in range(0, 60, 2)])
    with pytest.raises(
        ValueError, match=r"distance .* is 0: most of the \d+ training triplets"
    ):
        learning.learn_golden_feature(bank, triplets, np.ones(60, bool))
