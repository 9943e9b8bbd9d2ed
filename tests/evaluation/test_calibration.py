"""Thresholds by brute force over all pairs."""

import itertools

import numpy as np
import pytest
from sklearn import metrics

from deeprank_jax.evaluation import calibration


def create_split(seed=0, num_classes=8, num_images=6, noise=0.3):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(num_classes, 5))
    labels = np.repeat(np.arange(num_classes), num_images)
    rows = centers[labels] + noise * rng.normal(size=(len(labels), 5))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), labels


def list_pairs(rows, labels):
    pairs = list(itertools.combinations(range(len(rows)), 2))
    squares = np.array([np.sum((rows[i] - rows[j]) ** 2) for i, j in pairs])
    return squares, np.array([labels[i] == labels[j] for i, j in pairs])


def by_hand(pairs, distance, prior):
    """Returns precision, recall and false positive rate."""
    squares, same = pairs
    near = squares <= distance
    recall, false = np.mean(near[same]), np.mean(near[~same])
    return prior * recall / (prior * recall + (1 - prior) * false), recall, false


@pytest.mark.parametrize("prior", [0.5, 0.05])
@pytest.mark.parametrize("precision", [0.8, 0.95])
def test_the_threshold_is_the_largest_that_keeps_the_precision(precision, prior):
    rows, labels = create_split()
    found = calibration.calibrate(rows, labels, precision, prior=prior)
    pairs = list_pairs(rows, labels)
    expected = by_hand(pairs, found.distance, prior)
    np.testing.assert_allclose(
        (found.precision, found.recall, found.false_positive_rate), expected, rtol=1e-6
    )
    assert found.precision >= precision
    assert found.recall > 0.0
    beyond = [d for d in pairs[0] if d > found.distance]
    assert beyond
    assert all(by_hand(pairs, d + 1e-9, prior)[0] < precision for d in beyond)


def test_another_split_is_measured_at_the_same_distance():
    rows, labels = create_split(seed=1)
    found = calibration.verify(rows, labels, 0.3, prior=0.2)
    expected = by_hand(list_pairs(rows, labels), 0.3, 0.2)
    np.testing.assert_allclose(
        (found.precision, found.recall, found.false_positive_rate), expected, rtol=1e-6
    )
    assert found.num_pairs == len(labels) * (len(labels) - 1) // 2


def test_equal_distances_lie_on_one_side():
    rows = np.array([[0.0], [1.0], [2.0], [3.0]])
    # The pairs at distance 1: of one class, of two, of one class.
    found = calibration.calibrate(rows, np.array([0, 0, 1, 1]), 0.6)
    assert found.distance == 2.5
    assert found.recall == 1.0
    assert found.false_positive_rate == 0.25


@pytest.mark.parametrize(
    ("labels", "why"),
    [([0, 1, 2], "no pair of one class"), ([0, 0, 0], "no other pair")],
)
def test_no_threshold_without_both_kinds_of_pairs(labels, why):
    assert calibration.calibrate(np.eye(3), np.array(labels), 0.9) is None, why


def test_no_threshold_where_the_nearest_pair_is_of_two_classes():
    rows = np.array([[0.0], [0.1], [5.0], [9.0]])
    assert calibration.calibrate(rows, np.array([0, 1, 0, 1]), 0.99) is None


def test_a_large_split_is_cut_by_whole_classes():
    rows, labels = create_split(num_classes=20)
    found = calibration.verify(rows, labels, 0.3, max_records=30)
    assert found.num_pairs == 30 * 29 // 2
    again = calibration.verify(rows, labels, 0.3, max_records=30)
    assert found == again


def test_of_large_classes_a_part_is_taken():
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 300)
    rows = np.eye(4)[labels] + 0.01 * rng.normal(size=(1200, 4))
    found = calibration.calibrate(rows, labels, 0.95, max_records=100)
    assert found.num_pairs == 100 * 99 // 2
    assert found.recall > 0.99


@pytest.mark.parametrize("precision", [0.0, 1.5, float("nan")])
def test_a_precision_that_cannot_be_is_refused(precision):
    with pytest.raises(ValueError, match=r"precision must be in \(0, 1\]"):
        calibration.calibrate(np.eye(2), np.array([0, 0]), precision)


def test_a_prior_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"prior must be in \(0, 1\)"):
        calibration.calibrate(np.eye(2), np.array([0, 0]), 0.9, prior=1.0)
    with pytest.raises(ValueError, match=r"prior must be in \(0, 1\)"):
        calibration.verify(np.eye(2), np.array([0, 0]), 0.9, prior=0.0)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("rate", [0.0, 0.001, 0.01, 0.29])
def test_fnmr_at_fmr_is_its_definition(rate, ties):
    rows, labels = create_split(seed=2, noise=0.6)
    rows = np.round(2 * rows) if ties else rows
    squares, same = list_pairs(rows, labels)
    assert len(np.unique(squares)) < 30 if ties else len(squares)
    allowed = [-1.0] + [d for d in squares if np.mean(squares[~same] <= d) <= rate]
    expected = np.mean(squares[same] > max(allowed))
    assert 0 < expected < 1 or (ties and rate < 0.01)
    found = calibration.false_non_match_rate(rows, labels, rate)
    assert found == pytest.approx(expected)
    false, recall, _ = metrics.roc_curve(same, -squares, drop_intermediate=False)
    assert found == pytest.approx(1 - recall[false <= rate].max())


def test_several_rates_are_as_each_alone(monkeypatch):
    monkeypatch.setattr(calibration, "_BLOCK", 7)
    rows, labels = create_split(seed=3, noise=0.6)
    rates = (0.1, 0.001, 0.3, 0.0)
    found = calibration.false_non_match_rates(rows, labels, rates)
    alone = [calibration.false_non_match_rate(rows, labels, rate) for rate in rates]
    assert found == alone
    assert len(set(found)) == 4


def test_blocks_have_every_pair_once(monkeypatch):
    rows, labels = create_split(seed=4)
    squares, same = list_pairs(rows, labels)
    for size in 1, 7, len(rows), 1000:
        monkeypatch.setattr(calibration, "_BLOCK", size)
        distances, is_same = calibration._pairs(rows, labels, 4096, 0)
        np.testing.assert_allclose(distances, squares, rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(is_same, same)


def test_a_rate_counts_whole_pairs():
    """.29 of 100 pairs of two classes are 29, though the product is below it."""
    assert 0.29 * 100 < 29
    rows = np.random.default_rng(2).normal(size=(20, 1))
    labels = np.repeat([0, 1], 10)
    squares, same = list_pairs(rows, labels)
    others = np.sort(squares[~same])
    assert len(others) == 100
    missed = [np.mean(squares[same] >= others[i]) for i in (28, 29)]
    assert missed[0] > missed[1]
    assert calibration.false_non_match_rate(rows, labels, 0.29) == missed[1]


@pytest.mark.parametrize("labels", [[0, 1, 2], [0, 0, 0]])
def test_no_fnmr_without_both_kinds_of_pairs(labels):
    assert calibration.false_non_match_rate(np.eye(3), np.array(labels), 0.1) is None


def test_equal_rows_of_two_classes_let_no_pair_through():
    rows, labels = np.zeros((4, 2)), np.array([0, 0, 1, 1])
    assert calibration.false_non_match_rate(rows, labels, 0.5) == 1.0


def test_what_has_no_fnmr_is_refused():
    labels = np.array([0, 0, 1])
    for rate in -0.1, 1.0, float("nan"):
        with pytest.raises(ValueError, match=r"false_match_rates must be in \[0, 1\)"):
            calibration.false_non_match_rate(np.eye(3), labels, rate)


@pytest.mark.parametrize(
    "measure",
    [calibration.calibrate, calibration.verify, calibration.false_non_match_rate],
    ids=lambda fn: fn.__name__,
)
def test_embeddings_that_have_no_distances_are_refused(measure):
    labels = np.array([0, 0, 1])
    for value in np.nan, 1e30:
        rows = np.eye(3)
        rows[1, 2] = value
        with pytest.raises(ValueError, match=r"1 of 3 embeddings are not .* row 1"):
            measure(rows, labels, 0.1)
    with pytest.raises(ValueError, match="2 embeddings for 3 records"):
        measure(np.eye(2), labels, 0.1)


def test_between_neighbouring_distances_the_nearer_is_the_threshold():
    """Their middle is no number, and rounds to the one that must stay out."""
    step = np.float32(1) + np.finfo(np.float32).eps
    far = np.sqrt(np.array([step, np.nextafter(step, np.float32(2))], np.float64))
    assert np.float32(np.mean(np.square(far))) == np.float32(far[1] ** 2)
    rows = np.array([[0.0, 0.0], [far[0], 0.0], [0.0, far[1]]])
    found = calibration.calibrate(rows, np.array([0, 0, 1]), 1.0)
    assert (found.precision, found.recall) == (1.0, 1.0)
    again = calibration.verify(rows, np.array([0, 0, 1]), found.distance)
    assert (again.precision, again.recall) == (1.0, 1.0)


def test_nearly_every_pair_may_be_let_through():
    embeddings = np.array([[0.0], [1.0], [5.0], [9.0]])
    found = calibration.false_non_match_rate(
        embeddings, np.array([0, 0, 1, 1]), 1 - 1e-12
    )
    assert found == 0.0


def draw_classes(num_classes, spread, *, num_rows=8, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(num_classes), num_rows)
    rows = rng.normal(size=(num_classes, 4))[labels]
    return rows + spread * rng.normal(size=rows.shape), labels


def test_the_precision_on_unseen_classes_is_that_of_their_halves():
    rows, labels = draw_classes(12, 0.5)
    unseen = calibration.measure_unseen_precision(rows, labels, 0.9, num_draws=40)
    rng, expected = np.random.default_rng(0), []
    rng.permutation(96)  # The order of the records.
    rng.permutation(12)  # That of the classes.
    for _ in range(40):
        half = np.isin(labels, rng.permutation(12)[:6])
        chosen = calibration.calibrate(rows[half], labels[half], 0.9)
        others = rows[~half], labels[~half]
        expected.append(calibration.verify(*others, chosen.distance).precision)
    assert unseen.mean == pytest.approx(np.mean(expected))
    assert unseen.low == pytest.approx(np.quantile(expected, 0.05))
    assert unseen.high == pytest.approx(np.quantile(expected, 0.95))
    assert unseen.low < 0.85 < 0.9 < unseen.high


@pytest.mark.slow
def test_more_classes_narrow_the_precision_on_unseen_ones():
    reach = []
    for num_classes in (6, 24, 96):
        unseen = calibration.measure_unseen_precision(
            *draw_classes(num_classes, 0.5), 0.9
        )
        reach.append(unseen.high - unseen.low)
    assert reach[0] > 1.5 * reach[1] > 2 * reach[2]


@pytest.mark.slow
def test_large_classes_leave_none_out():
    labels = np.repeat(np.arange(100), 60)
    rng = np.random.default_rng(0)
    indices = calibration._choose_of_each_class(labels, 1024, rng)
    np.testing.assert_array_equal(np.bincount(labels[indices]), [10] * 100)
    # Of more classes than there is room for, two records each.
    indices = calibration._choose_of_each_class(labels, 60, rng)
    counts = np.bincount(labels[indices], minlength=100)
    assert sorted(set(counts.tolist())) == [0, 2]
    assert len(indices) == 60
    rows, labels = draw_classes(60, 0.2, num_rows=100)
    assert calibration.measure_unseen_precision(rows, labels, 0.9).low > 0.8


@pytest.mark.parametrize(("num_classes", "num_rows"), [(1, 8), (2, 8), (3, 8), (12, 1)])
def test_too_few_classes_have_no_precision_on_unseen_ones(num_classes, num_rows):
    rows, labels = draw_classes(num_classes, 0.1, num_rows=num_rows)
    assert calibration.measure_unseen_precision(rows, labels, 0.9) is None


@pytest.mark.parametrize(
    ("sizes", "prior", "is_enough"),
    [
        ([2, 2, 2, 2], 0.5, False),  # 4 pairs of one class.
        ([6, 5], 0.5, False),  # 25 and 30.
        ([8, 8], 0.5, True),  # 56 and 64: 57 are needed.
        ([8, 8], 0.1, False),
        ([5] * 7, 0.1, True),  # 70 and 525: 513 are needed.
        ([2] * 40, 0.1, True),
        ([2] * 15, 0.5, False),
    ],
)
def test_too_few_pairs_support_no_precision(sizes, prior, is_enough):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    reason = calibration.why_too_few(labels, 0.95, prior=prior)
    assert (reason == "") == is_enough
    if not is_enough:
        same = labels[:, None] == labels
        num_same = (same.sum() - len(labels)) // 2
        others = (~same).sum() // 2
        assert f"{num_same} pairs of one class and {others} of two" in reason
