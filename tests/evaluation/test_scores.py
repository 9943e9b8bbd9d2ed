"""The rows that a metric is of."""

import numpy as np
import pytest

from deeprank_jax.evaluation import scores


def test_a_metric_is_a_weighted_mean_or_a_sum():
    values, weights = np.array([1.0, 0.0, 6.0, 0.0]), np.array([2.0, 0.0, 3.0, 5.0])
    assert scores.QueryScores(values, weights).value == 0.7
    assert scores.QueryScores(values, weights, is_sum=True).value == 7.0
    counts = scores.QueryScores(values, weights).counts
    np.testing.assert_array_equal(counts, [True, False, True, True])


def test_what_does_not_count_is_left_out():
    values, where = np.array([1.0, np.nan, 3.0]), np.array([True, False, True])
    assert scores.mean_over(values, where).value == 2.0
    assert scores.sum_over(values, where).value == 4.0


@pytest.mark.parametrize("num", [0, 3])
@pytest.mark.parametrize("over", [scores.mean_over, scores.sum_over])
def test_a_metric_over_no_query_is_zero(over, num):
    assert over(np.ones(num), np.zeros(num, bool)).value == 0.0


@pytest.mark.parametrize(
    ("values", "weights", "message"),
    [
        (np.ones(3), np.ones(2), r"\(3,\) and \(2,\)"),
        (np.ones((2, 2)), np.ones((2, 2)), r"\[Q\] both"),
        (np.array([np.nan]), np.ones(1), "must be finite"),
        (np.ones(1), np.array([np.inf]), "must be finite"),
        (np.ones(1), np.array([-1.0]), "at least 0"),
        (np.ones(1), np.zeros(1), "weight 0 has the value 0"),
    ],
)
def test_bad_scores_are_refused(values, weights, message):
    with pytest.raises(ValueError, match=message):
        scores.QueryScores(values, weights)


def test_rows_are_checked_against_the_records():
    rows, where, queries = scores.check_rows(2, np.ones((2, 3)), None, None)
    assert queries is rows
    assert where.all()
    with pytest.raises(ValueError, match=r"got \(2, 3\) and \(2, 4\)"):
        scores.check_rows(2, np.ones((2, 3)), None, np.ones((2, 4)))
    with pytest.raises(ValueError, match=r"each of 2 records, got \(3,\)"):
        scores.check_rows(2, np.ones((2, 3)), np.ones(3, bool), None)
