"""The verdict at the top of the page, from intervals made up by hand."""

import pytest

from deeprank_jax.report.metric_tables import describe_baselines
from deeprank_jax.report.verdict import create_verdict

MINUS, BLANK = "\N{MINUS SIGN}", "\N{NO-BREAK SPACE}"
MEANINGS = {"retrieval/recall@1": "Share of queries with a hit."}


def verdict(
    differences,
    num_classes=12,
    metric="recall@1",
    split="test",
    evaluator="retrieval",
    meanings=MEANINGS,
):
    systems = dict(model=0.5, **dict.fromkeys(differences, 0.4))
    # The images that a classifier did not train on come last.
    results = {"train": {}, split: {evaluator: {metric: systems}}, "held out": {}}
    ends = {"model": {"low": 0.4, "high": 0.6}}
    for system, difference in differences.items():
        ends[system] = {"low": 0.3, "high": 0.5, "model_better_by": difference}
    intervals = {split: {evaluator: {metric: ends}}}
    return create_verdict(results, intervals, {split: num_classes}, meanings)


@pytest.mark.parametrize(
    ("differences", "text"),
    [
        (
            {"untrained": [0.05, 0.02, 0.08], "pixels": [0.1, 0.05, 0.15]},
            "Better than the untrained network by +0.050 [+0.020, +0.080] and the "
            "images shrunk to 16x16 pixels by +0.100 [+0.050, +0.150] in recall@1 on "
            "test.",
        ),
        (
            {"untrained": [0.05, 0.02, 0.08], "frozen": [0.01, -0.01, 0.03]},
            "Better than the network before training by +0.050 [+0.020, +0.080] in "
            "recall@1 on test; not surely better than the pretrained trunk alone "
            f"(+0.010 [{MINUS}0.010, +0.030]).",
        ),
        (
            {"untrained": [0.0, 0.0, 0.0], "pixels": [-0.1, -0.2, -0.05]},
            "Worse than the images shrunk to 16x16 pixels "
            f"({MINUS}0.100 [{MINUS}0.200, {MINUS}0.050]) in recall@1 on test; the "
            "same as the untrained network.",
        ),
        (
            {"whitened": [0.02, 0.01, 0.03], "untrained": [0.01, -0.01, 0.03]},
            "Better than the untrained network, whitened, by +0.020 [+0.010, +0.030] "
            "in recall@1 on test; not surely better than the untrained network "
            f"(+0.010 [{MINUS}0.010, +0.030]).",
        ),
        # An interval that ends at 0 is not above it.
        (
            {"pixels": [0.01, 0.0, 0.03]},
            "Not surely better than the images shrunk to 16x16 pixels "
            "(+0.010 [0.000, +0.030]) in recall@1 on test.",
        ),
    ],
)
def test_the_verdict_is_read_off_the_paired_intervals(differences, text):
    result = verdict(differences)
    assert result.text.replace(BLANK, " ") == text
    assert "share of queries with a hit." in result.note
    assert "12 classes" in result.note


@pytest.mark.parametrize(
    ("num", "words"),
    [
        (9, "The test split has queries of 9 classes."),
        (1, "In the test split one class has several images."),
        (0, "In the test split no class has several images."),
    ],
)
def test_below_ten_classes_there_is_none_and_the_reason(num, words):
    result = verdict({}, num_classes=num)
    assert result.text == "No verdict: the numbers rest on too few classes."
    assert result.note.startswith(f"{words} With fewer than 10,")


def test_a_graded_relevance_may_have_queries_that_are_alone_of_their_class():
    result = verdict({"pixels": [0.1, 0.05, 0.15]}, num_classes=0)
    assert result.text.startswith("Better than the images shrunk to 16x16 pixels")
    assert "intervals over classes of queries;" in result.note


def test_without_an_interval_there_is_none():
    assert verdict({"pixels": [0.1, 0.05, 0.15]}, metric="mrr").text == (
        "No verdict: no difference to a baseline has an interval."
    )
    assert create_verdict({}, {}, {}, {}).text == ""


def test_without_a_test_split_the_verdict_is_on_validation():
    result = verdict({"pixels": [0.1, 0.05, 0.15]}, split="validation")
    assert result.text.endswith("in recall@1 on validation.")


def test_the_metric_is_named_as_in_the_tables():
    differences = {"pixels": [0.1, 0.05, 0.15]}
    meanings = {"rated/precision": "Share of the rated triplets in order"}
    result = verdict(
        differences, metric="precision", evaluator="rated", meanings=meanings
    )
    assert result.text.endswith("in rated precision on test.")
    assert result.note.startswith(
        "rated precision: share of the rated triplets in order. Brackets are "
    )
    result = verdict(differences, meanings={})
    assert result.note.startswith("Brackets are ")


@pytest.mark.parametrize("system", ["frozen", "pixels"])
def test_a_baseline_has_one_name_on_the_page(system):
    differences = {name: [0.1, 0.05, 0.15] for name in ("untrained", system)}
    text = verdict(differences).text
    results = {"test": {"retrieval": {"recall@1": {"model": 1.0, **differences}}}}
    for name in describe_baselines(results):
        assert name.removesuffix(" (frozen)") in text


def test_retrieval_by_relevance_comes_before_that_by_classes():
    ends = {"model_better_by": [0.1, 0.05, 0.15]}
    values = {"recall@1": {"model": 0.5, "pixels": 0.4}}
    result = create_verdict(
        {"test": {"retrieval": values, "relevant_retrieval": values}},
        {
            "test": {
                "retrieval": {"recall@1": {"pixels": ends}},
                "relevant_retrieval": {"recall@1": {"pixels": ends}},
            }
        },
        {"test": 12},
        {},
    )
    assert "in recall@1 by relevance on test" in result.text
