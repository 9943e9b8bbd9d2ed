"""`tools.benchmark label_errors` measures what it says, on made-up embeddings."""

import numpy as np
import pytest

from tools.benchmark import label_errors

NAMES = {
    "images",
    "any_label_precision",
    "any_label_auroc",
    "same_parent_precision",
    "same_parent_auroc",
}


def levels():
    return np.stack([np.repeat([0, 1], 100), np.repeat(np.arange(20), 10)], axis=1)


def test_planted_labels_are_wrong_and_of_the_same_group():
    labels = levels()
    planted, is_wrong = label_errors.plant(labels[:, 1], labels[:, 0], seed=3)
    assert is_wrong.sum() == 10
    np.testing.assert_array_equal(planted != labels[:, 1], is_wrong)
    np.testing.assert_array_equal(planted // 10, labels[:, 0])


def test_a_label_without_another_in_its_group_is_not_replaced():
    labels = np.arange(40)
    planted, is_wrong = label_errors.plant(labels, labels, seed=0)
    np.testing.assert_array_equal(planted, labels)
    assert not is_wrong.any()


def test_errors_among_separate_classes_are_found_and_among_noise_are_not():
    labels = levels()
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(20, 16))[labels[:, 1]]
    values = label_errors.measure_planted(rows + rng.normal(size=(200, 16)) / 9, labels)
    assert values.keys() == NAMES
    # Two of one class that become two of one other are near to their new label.
    for name in NAMES - {"images"}:
        assert values[name] > 0.9
    values = label_errors.measure_planted(rng.normal(size=(200, 16)), labels)
    assert values["any_label_precision"] < 0.5
    assert values["any_label_auroc"] == pytest.approx(0.5, abs=0.2)
