import math
import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
from sklearn import metrics

from deeprank_jax.evaluation import embed_split
from deeprank_jax.evaluation import retrieval as module
from deeprank_jax.evaluation.retrieval import Retrieval
from deeprank_jax.relevance import Hierarchy, SameClass
from deeprank_jax.relevance.label_function import LabelFunction
from deeprank_jax.search import exact

GAINS = Hierarchy((0.1, 0.4, 1.0))


def random_attributes(seed, num_records=40):
    """Labels that nest: category, subcategory, class; some classes have one record."""
    classes = np.random.default_rng(seed).integers(0, 16, num_records)
    return np.stack([classes // 8, classes // 3, classes], axis=1)


def reference_rows(attributes, embeddings, ks, relevance, queries=None):
    """Every metric from its definition; None for a query that does not count."""
    num = len(attributes)
    queries = embeddings if queries is None else queries
    rows = {f"recall@{k}": [] for k in ks}
    rows |= {f"precision@{k}": [] for k in ks if k > 1}
    rows |= {"map@r": [], "r_precision": [], "mrr": []}
    rows |= {f"ndcg@{k}": [] for k in ks}
    for q in range(num):
        others = [j for j in range(num) if j != q]
        far = {j: float(np.sum((queries[q] - embeddings[j]) ** 2)) for j in others}
        ranked = sorted(others, key=lambda j: (far[j], j))
        hits = [attributes[j, -1] == attributes[q, -1] for j in ranked]
        gain = [float(relevance.pairwise(attributes[q], attributes[j])) for j in ranked]
        num_relevant = sum(hits)
        counted = lambda value, num_relevant=num_relevant: (
            float(value) if num_relevant else None
        )
        for k in ks:
            dcg = sum(g / math.log2(i + 2) for i, g in enumerate(gain[:k]))
            best = sorted(gain, reverse=True)[:k]
            ideal = sum(g / math.log2(i + 2) for i, g in enumerate(best))
            rows[f"ndcg@{k}"].append(dcg / ideal if ideal else None)
            rows[f"recall@{k}"].append(counted(any(hits[:k])))
            if k > 1:
                share = sum(hits[:k]) / max(min(k, num - 1), 1)
                rows[f"precision@{k}"].append(counted(share))
        precisions = [
            sum(hits[: i + 1]) / (i + 1) for i in range(num_relevant) if hits[i]
        ]
        rows["map@r"].append(counted(sum(precisions) / max(num_relevant, 1)))
        rows["r_precision"].append(
            counted(sum(hits[:num_relevant]) / max(num_relevant, 1))
        )
        rows["mrr"].append(counted(1 / (1 + hits.index(True)) if num_relevant else 0))
    return rows


def reference(*args, **kwargs):
    """The metrics of `reference_rows`."""
    rows = reference_rows(*args, **kwargs)
    values = {
        name: float(np.mean([x for x in row if x is not None] or [0.0]))
        for name, row in rows.items()
    }
    num_queries = sum(x is not None for x in rows["map@r"])
    return values | {"num_queries": float(num_queries)}


@pytest.mark.parametrize("relevance", [GAINS, SameClass()], ids=["graded", "same"])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_number_is_its_definition(seed, ties, relevance):
    rng = np.random.default_rng(seed)
    attributes = random_attributes(seed)
    embeddings = rng.integers(0, 2 if ties else 1000, (40, 3)).astype(np.float32)
    expected = reference(attributes, embeddings, (1, 5, 10), relevance)
    assert 0 < expected["num_queries"] < 40  # Some class has a single record.
    assert 0 < expected["map@r"] < expected["r_precision"] < expected["mrr"] < 1
    found = dict(Retrieval(attributes, relevance).run(embeddings))
    assert list(found) == list(expected)
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("asymmetric", [False, True])
def test_every_query_has_a_row_of_its_own(asymmetric):
    rng = np.random.default_rng(4)
    attributes, where = random_attributes(4), rng.random(40) < 0.8
    embeddings = rng.normal(size=(40, 3)).astype(np.float32)
    queries = rng.normal(size=(40, 3)).astype(np.float32) if asymmetric else None
    kept = None if queries is None else queries[where]
    args = attributes[where], embeddings[where], (1, 5), GAINS
    rows = reference_rows(*args, queries=kept)
    embeddings[~where] = np.nan
    found = Retrieval(attributes, GAINS, ks=(1, 5)).measure(
        embeddings, where, queries=queries
    )
    assert found.keys() == {*rows, "num_queries"}
    for name, row in rows.items():
        expected = np.array([np.nan if x is None else x for x in row])
        assert np.isnan(expected).any() or name.startswith("ndcg")
        weights = np.zeros(40)
        weights[where] = ~np.isnan(expected)
        np.testing.assert_array_equal(found[name].weights, weights)
        np.testing.assert_allclose(
            found[name].values[where], np.nan_to_num(expected), atol=1e-12
        )
    symmetric = reference_rows(*args)
    assert (rows["map@r"] != symmetric["map@r"]) == asymmetric


def test_graded_gains_rank_as_scikit_learns():
    attributes = random_attributes(6)
    embeddings = np.random.default_rng(6).normal(size=(40, 3)).astype(np.float32)
    found = Retrieval(attributes, GAINS).measure(embeddings)
    for q in np.flatnonzero(found["ndcg@10"].counts):
        others = np.arange(40) != q
        nearness = -np.sum((embeddings[q] - embeddings[others]) ** 2, axis=1)
        gains = GAINS.pairwise(attributes[q], attributes[others])
        for k in 1, 5, 10:
            expected = metrics.ndcg_score(gains[None], nearness[None], k=k)
            assert found[f"ndcg@{k}"].values[q] == pytest.approx(expected)
    assert 0 < found["ndcg@10"].value < 1


def test_queries_of_their_own_search_what_others_search():
    """A shift of both sides changes no distance; a shift of one does."""
    attributes = random_attributes(5)
    embeddings = np.random.default_rng(5).integers(0, 50, (40, 3)).astype(np.float32)
    retrieval = Retrieval(attributes, GAINS)
    plain = dict(retrieval.run(embeddings))
    assert dict(retrieval.run(embeddings, queries=embeddings.copy())) == plain
    assert dict(retrieval.run(embeddings, queries=embeddings + 30.0)) != plain


@pytest.mark.parametrize(
    "classes",
    [[0], [0, 1, 2], [0, 0], [0, 0, 0, 1], [5] * 6],
    ids=["one_record", "all_alone", "one_pair", "one_alone", "one_class"],
)
def test_degenerate_splits_have_defined_numbers(classes):
    attributes = np.array(classes)[:, None]
    embeddings = np.arange(len(classes), dtype=np.float32)[:, None] ** 2
    expected = reference(attributes, embeddings, (1, 10), SameClass())
    found = dict(Retrieval(attributes, SameClass(), ks=(1, 10)).run(embeddings))
    assert found == pytest.approx(expected)


def test_no_record_at_all_gives_zeros():
    retrieval = Retrieval(np.zeros((3, 1), int), SameClass(), ks=(1,))
    found = dict(retrieval.run(np.ones((3, 2)), where=np.zeros(3, bool)))
    names = ["recall@1", "map@r", "r_precision", "mrr", "ndcg@1", "num_queries"]
    assert found == dict.fromkeys(names, 0.0)


def test_a_masked_record_is_neither_query_nor_gallery():
    attributes = random_attributes(2)
    rng = np.random.default_rng(2)
    embeddings, where = rng.normal(size=(40, 4)), rng.random(40) < 0.7
    embeddings[~where] = np.nan
    masked = dict(Retrieval(attributes, GAINS).run(embeddings, where))
    subset = dict(Retrieval(attributes[where], GAINS).run(embeddings[where]))
    assert masked == subset


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16), st.floats(0.2, 5.0))
def test_rotation_scale_and_shift_change_nothing(seed, scale):
    attributes = random_attributes(seed)
    rng = np.random.default_rng(seed)
    # No two distances are nearly equal.
    embeddings = 1.3 ** rng.permutation(40)[:, None] * np.array([[1.0, 0.0]])
    rotation, _ = np.linalg.qr(rng.normal(size=(2, 2)))
    moved = scale * (embeddings + 7.0) @ rotation
    retrieval = Retrieval(attributes, GAINS)
    assert dict(retrieval.run(moved)) == dict(retrieval.run(embeddings))


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        Retrieval(np.zeros((3, 1), int), SameClass(), ks=(0, 5))
    with pytest.raises(ValueError, match=r"whole numbers .* got \(1.5,\)"):
        Retrieval(np.zeros((3, 1), int), SameClass(), ks=(1.5,))
    with pytest.raises(ValueError, match="2 rows of attributes for 3 of labels"):
        Retrieval(np.zeros((3, 1), int), SameClass(), attributes=np.zeros((2, 4)))
    with pytest.raises(ValueError, match="2 embeddings for 3 records"):
        dict(Retrieval(np.zeros((3, 1), int), SameClass()).run(np.ones((2, 2))))


def test_a_cut_off_given_twice_is_one():
    labels, embeddings = np.array([[0], [0], [1]]), np.eye(3)
    found = dict(Retrieval(labels, SameClass(), ks=(2, 1, 2)).run(embeddings))
    assert found == dict(Retrieval(labels, SameClass(), ks=(1, 2)).run(embeddings))


@pytest.mark.parametrize("value", [-1.0, np.nan])
def test_a_relevance_that_cannot_be_is_refused(value):
    relevance = LabelFunction(lambda a, b: np.where(a[..., 0] == b[..., 0], 1.0, value))
    retrieval = Retrieval(np.array([[0], [0], [1]]), relevance)
    with pytest.raises(ValueError, match="negative or not finite: nDCG"):
        dict(retrieval.run(np.eye(3)))


@pytest.mark.parametrize("side", ["embeddings", "queries"])
@pytest.mark.parametrize("num_records", [1, 3])
def test_rows_that_are_not_finite_are_refused(num_records, side):
    rows = {name: np.ones((num_records, 2)) for name in ("embeddings", "queries")}
    rows[side][-1, 1] = np.inf
    retrieval = Retrieval(np.zeros((num_records, 1), int), SameClass())
    message = f"1 of {num_records} embeddings are not finite.* row {num_records - 1}"
    with pytest.raises(ValueError, match=message):
        dict(retrieval.run(**rows))


def test_blocks_change_no_number(monkeypatch):
    attributes = random_attributes(3)
    embeddings = np.random.default_rng(3).normal(size=(40, 4)).astype(np.float32)
    retrieval = Retrieval(attributes, GAINS, ks=(1, 5, 100))
    whole = dict(retrieval.run(embeddings))
    monkeypatch.setattr(exact, "_MAX_QUERIES", 4)
    monkeypatch.setattr(module, "_BLOCK", 5)
    assert dict(retrieval.run(embeddings)) == whole


@pytest.mark.slow
def test_memory_does_not_grow_with_the_largest_class(monkeypatch):
    """One class of 1,500: a value for each pair is 2.2 million."""
    monkeypatch.setattr(exact, "_BLOCK_VALUES", 2**16)
    classes = np.zeros((1500, 1), int)
    embeddings = np.random.default_rng(0).normal(size=(1500, 2))
    retrieval = Retrieval(classes, SameClass())
    assert dict(retrieval.run(embeddings))["map@r"] == pytest.approx(1.0)
    tracemalloc.start()
    dict(retrieval.run(embeddings))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22


def test_memory_does_not_grow_with_the_number_of_kinds(monkeypatch):
    """3,000 records, each of its own attributes: a block of 256 is 0.8 million."""
    monkeypatch.setattr(module, "_BLOCK_VALUES", 2**15)
    attributes = np.arange(3000)[:, None]
    retrieval = Retrieval(attributes // 2, SameClass(), attributes=attributes)
    embeddings = attributes // 2
    assert dict(retrieval.run(embeddings))["mrr"] == 1.0
    tracemalloc.start()
    dict(retrieval.run(embeddings))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22


def test_embedding_a_split_leaves_out_padding_and_bad_images():
    """Record 1 is bad, record 4 is never shown, record 3 embeds to NaN."""
    images = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones(
        (1, 2, 2, 3), np.uint8
    )
    batches = [
        dict(
            images=images[:3],
            indices=np.array([2, 1, 0]),
            mask=np.array([True, False, True]),
        ),
        dict(
            images=images[3:],
            indices=np.array([3, 5, 0]),
            mask=np.array([True, True, False]),
        ),
    ]
    seen = []

    def embed(x):
        values = x.mean(axis=(1, 2, 3))[:, None] * np.array([[1.0, 10.0]])
        return np.where(values == 3.0, np.nan, values)

    def progress(batches):
        for batch in batches:
            seen.append(len(batch["mask"]))
            yield batch

    embeddings, ok = embed_split(embed, batches, 6, progress=progress)
    np.testing.assert_array_equal(ok, [True, False, True, False, False, True])
    np.testing.assert_array_equal(embeddings[:, 1], [20, 0, 0, 0, 0, 40])
    assert embeddings.dtype == np.float32
    assert seen == [3, 3]
    assert embed_split(embed, [], 2)[0].shape == (2, 0)


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e19, 1e39])
def test_embeddings_that_cannot_be_squared_are_refused(value):
    """Of 3e19 the square is beyond float32, and all distances would be infinite."""
    embeddings = np.ones((4, 2))
    embeddings[2, 1] = value
    retrieval = Retrieval(np.zeros((4, 1), int), SameClass())
    with pytest.raises(ValueError, match=r"1 of 4 embeddings .* first is row 2"):
        dict(retrieval.run(embeddings))
    assert dict(retrieval.run(embeddings, np.arange(4) != 2))["num_queries"] == 3
