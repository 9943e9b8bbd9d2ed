"""The split and the metrics that a page is about."""

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


def test_listed_pairs_come_first_and_codes_after_embeddings():
    metrics = {
        "codes": {"recall@1": {"model": 0.6}},
        "retrieval": {"recall@1": {"model": 0.8}},
        "pairs": {"roc_auc": {"model": 0.9}, "num_pairs": {"model": 7}},
    }
    rows = metric_tables.headline_rows({"test": metrics})
    assert [metric_tables.full_name(*row[:2]) for row in rows] == [
        "roc_auc of pairs", "recall@1", "recall@1 of codes",
    ]  # fmt: skip
