"""The warning of metrics that rest on few queries."""

from deeprank_jax.evaluation.compare import describe_few_queries


def results(num_queries):
    return {
        "triplets": {"similarity_precision": {"model": 0.9}},
        "retrieval": {
            "recall@1": {"model": 0.75, "pixels": 0.5},
            "num_queries": {"model": float(num_queries)},
        },
    }


def test_few_queries_are_told_with_the_interval():
    ends = {"retrieval": {"recall@1": {"model": {"low": 0.6, "high": 0.85}}}}
    text = describe_few_queries(results(99), ends)
    assert "only 99 queries" in text
    assert "recall@1 0.750, 95 % interval 0.600 to 0.850" in text
    assert "only 99 queries (recall@1 0.750)" in describe_few_queries(results(99), {})


def test_a_hundred_queries_and_no_retrieval_give_no_warning():
    assert not describe_few_queries(results(100), {})
    assert not describe_few_queries({"triplets": {}}, {})
