"""The split that a page is about."""

import pytest

from deeprank_jax.report import metric_tables


@pytest.mark.parametrize(
    ("splits", "expected"),
    [
        (["validation", "test"], "test"),
        # Training images whose classes alone are measured come last.
        (["validation", "test", "held out"], "test"),
        (["validation", "held out"], "validation"),
        (["photos"], "photos"),
        ([], ""),
    ],
)
def test_the_main_split_is_test_else_validation(splits, expected):
    assert metric_tables.main_split({split: {} for split in splits}) == expected
