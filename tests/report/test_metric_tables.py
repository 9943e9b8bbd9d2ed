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


def test_cosines_have_no_best_and_each_its_own_interval():
    values = {"model": 0.3, "untrained": 0.9}
    results = {
        "test": {
            "shared_attributes": {"other_kind": values},
            "retrieval": {"recall@1": values},
        }
    }
    ends = {
        "model": {"low": 0.2, "high": 0.4},
        "untrained": {"low": 0.8, "high": 1.0, "model_better_by": [-0.6, -0.7, -0.5]},
    }
    intervals = {"test": {name: {x: ends for x in metrics}
                          for name, metrics in results["test"].items()}}  # fmt: skip
    (split,) = metric_tables.create_tables(results, intervals, {})
    cosines, recalls = (table["rows"][0]["cells"] for table in split["tables"])
    assert [cell["best"] for cell in cosines] == [False, False]
    assert [cell["best"] for cell in recalls] == [False, True]
    space, minus = "\N{NO-BREAK SPACE}", "\N{MINUS SIGN}"
    assert [cell["interval"] for cell in cosines] == [
        f"[0.200,{space}0.400]",
        f"[0.800,{space}1.000]",
    ]
    assert recalls[1]["interval"].startswith(f"{minus}0.600 [{minus}0.700")
