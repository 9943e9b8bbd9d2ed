"""Global average precision by hand and beside scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from deeprank_jax.evaluation.global_average_precision import global_average_precision


def test_by_hand():
    # Correct at the places 1 and 3 of 4; three queries have an answer.
    value = global_average_precision(
        np.array([0.2, 0.9, 0.5, 0.4]), np.array([False, True, False, True]), 3
    )
    assert value == pytest.approx((1 / 1 + 2 / 3) / 3)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("with_ties", [False, True])
def test_it_is_the_average_precision_over_all_that_have_an_answer(seed, with_ties):
    rng = np.random.default_rng(seed)
    confidences, correct = rng.normal(size=50), rng.random(50) < 0.4
    if with_ties:
        confidences = confidences.round(0)
    expected = average_precision_score(correct, confidences) * correct.sum() / 40
    value = global_average_precision(confidences, correct, 40)
    assert value == pytest.approx(expected)


def test_nothing_correct_is_0_and_all_correct_is_1():
    confidences = np.arange(5.0)
    assert global_average_precision(confidences, np.zeros(5, bool), 2) == 0
    assert global_average_precision(confidences, np.ones(5, bool), 5) == 1


@pytest.mark.parametrize(
    ("confidences", "correct", "num", "message"),
    [
        ([0.1, 0.2], [True], 1, "one of each"),
        ([0.1, np.nan], [True, False], 1, "finite"),
        ([0.1, 0.2], [True, True], 1, "at least 1 and the 2 correct"),
        ([0.1, 0.2], [False, False], 0, "at least 1"),
    ],
)
def test_bad_arguments(confidences, correct, num, message):
    with pytest.raises(ValueError, match=message):
        global_average_precision(np.array(confidences), np.array(correct), num)
