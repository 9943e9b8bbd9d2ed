from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from deeprank_jax.errors import DataError
from deeprank_jax.evaluation import sampled_triplets
from deeprank_jax.evaluation import triplets as module
from deeprank_jax.evaluation.stored_triplets import load_triplets, save_triplets
from deeprank_jax.evaluation.triplets import Triplets


def random_case(seed, *, num_records=40, num_triplets=200, largest=4):
    """Records in three categories; small integers, so that many distances tie."""
    rng = np.random.default_rng(seed)
    attributes = np.stack([rng.integers(0, 3, num_records), np.arange(num_records)], 1)
    embeddings = rng.integers(0, largest, (num_records, 3)).astype(np.float32)
    drawn = [rng.permutation(num_records)[:3] for _ in range(num_triplets)]
    return attributes, np.array(drawn), embeddings


def reference(attributes, triplets, embeddings, k, level, queries=None):
    """Every metric from its definition, one triplet at a time."""
    queries = embeddings if queries is None else queries
    category = lambda i: 0 if level is None else attributes[i, level]
    far = lambda i, j: float(np.sum((queries[i] - embeddings[j]) ** 2))
    groups, score, counted = {"": [], "_in_class": [], "_out_of_class": []}, 0, 0
    for a, p, n in triplets:
        right = far(a, p) < far(a, n)
        inside = category(a) == category(n)
        groups[""].append(right)
        groups["_in_class" if inside else "_out_of_class"].append(right)
        candidates = [
            j for j in range(len(attributes)) if j != a and category(j) == category(a)
        ]
        rank = lambda x, a=a, among=candidates: sum(
            far(a, j) < far(a, x) for j in among
        )
        if rank(p) < k or rank(n) < k:
            counted += 1
            score += 1 if right else -1
    expected = {f"precision{g}": float(np.mean(v)) for g, v in groups.items() if v}
    expected[f"score_at_{k}"] = float(score)
    expected[f"score_at_{k}_share"] = score / counted if counted else 0.0
    return expected | {"num_triplets": float(len(triplets))}, counted


@pytest.mark.parametrize("level", [0, None])
@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("largest", [3, 1000])
def test_every_number_is_its_definition(largest, k, level, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK_VALUES", 40 * 17)  # Several blocks.
    attributes, triplets, embeddings = random_case(0, largest=largest)
    expected, counted = reference(attributes, triplets, embeddings, k, level)
    assert 0 < counted < len(triplets)
    assert expected[f"score_at_{k}"] != 0
    evaluator = Triplets(attributes, triplets, category_level=level, k=k)
    assert dict(evaluator.run(embeddings)) == pytest.approx(expected)


@pytest.mark.parametrize("asymmetric", [False, True])
def test_every_anchor_has_a_row_of_its_own(asymmetric):
    attributes, triplets, embeddings = random_case(2, num_triplets=60, largest=100)
    queries = random_case(3, largest=100)[2] if asymmetric else None
    found = Triplets(attributes, triplets, k=4).measure(embeddings, queries=queries)
    anchors = np.unique(triplets[:, 0])
    assert 0 < len(anchors) < 40
    for anchor in range(40):
        own = triplets[triplets[:, 0] == anchor]
        expected, counted = reference(attributes, own, embeddings, 4, 0, queries)
        row = {name: scores.values[anchor] for name, scores in found.items()}
        weight = {name: scores.weights[anchor] for name, scores in found.items()}
        assert weight["precision"] == len(own) == row["num_triplets"]
        assert row["precision"] == pytest.approx(
            expected.get("precision", 0.0) * len(own)
        )
        assert row["score_at_4"] == expected["score_at_4"] == row["score_at_4_share"]
        assert weight["score_at_4_share"] == counted
        inside = attributes[own[:, 2], 0] == attributes[anchor, 0]
        assert weight["precision_in_class"] == inside.sum()
        assert weight["precision_out_of_class"] == np.sum(~inside)
        in_class = expected.get("precision_in_class", 0.0) * inside.sum()
        assert row["precision_in_class"] == pytest.approx(in_class)
    whole = reference(attributes, triplets, embeddings, 4, 0, queries)[0]
    values = {name: scores.value for name, scores in found.items()}
    assert values == pytest.approx(whole)
    symmetric = reference(attributes, triplets, embeddings, 4, 0)[0]
    assert (whole != symmetric) == asymmetric


def test_a_tie_is_wrong():
    attributes = np.zeros((3, 1), int)
    embeddings = np.array([[0.0], [0.1], [0.1]], np.float32)
    found = dict(Triplets(attributes, np.array([[0, 1, 2]])).run(embeddings))
    assert found["precision"] == 0.0
    assert found["score_at_30"] == -1.0
    assert "precision_out_of_class" not in found


@pytest.mark.slow
def test_equal_images_rank_alike():
    """Wherever they lie: of 1,001 images 7 are different.

    142 are as the anchor, and the next 143 are all in the 143rd place.
    """
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(7, 128))[np.arange(1001) % 7]
    attributes = np.zeros((1001, 1), int)
    triplets = np.array([(i, 994 + j, 40 + j) for i in range(40) for j in (4, 5, 6)])
    found = Triplets(attributes, triplets, k=143).measure(embeddings)
    expected, counted = reference(attributes, triplets, embeddings, 143, 0)
    assert 0 < counted < 120
    assert found["score_at_143_share"].weights.sum() == counted
    assert found["score_at_143"].value == expected["score_at_143"]


def test_no_triplets_give_zeros():
    found = dict(Triplets(np.zeros((3, 1), int), np.zeros((0, 3), int)).run(np.eye(3)))
    assert found == {
        "precision": 0.0,
        "score_at_30": 0.0,
        "score_at_30_share": 0.0,
        "num_triplets": 0.0,
    }


def test_a_masked_record_takes_part_in_nothing():
    attributes, triplets, embeddings = random_case(1)
    where = np.random.default_rng(1).random(40) < 0.8
    kept = triplets[where[triplets].all(axis=1)]
    assert 0 < len(kept) < len(triplets)
    renumbered = np.cumsum(where)[kept] - 1
    subset = Triplets(attributes[where], renumbered, k=3).run(embeddings[where])
    embeddings[~where] = np.nan
    masked = Triplets(attributes, triplets, k=3).run(embeddings, where)
    assert dict(masked) == dict(subset)


def test_metrics_depend_on_the_triplets_and_not_on_what_was_embedded():
    labels = np.array([[0], [0], [0], [1], [1]])
    evaluator = Triplets(labels, np.array([[0, 1, 2], [0, 1, 3]]))
    embeddings = np.arange(5.0)[:, None]
    for left_out in range(5):
        where = np.arange(5) != left_out
        found = evaluator.measure(embeddings, where)
        assert {"precision_in_class", "precision_out_of_class"} < found.keys()
        kept = [int(left_out not in (0, 1, last)) for last in (2, 3)]
        for kind, num in zip(("in", "out_of"), kept, strict=True):
            scores = found[f"precision_{kind}_class"]
            assert (scores.weights.sum(), scores.value) == (num, num)
    found = Triplets(labels, np.array([[0, 1, 2]])).measure(embeddings)
    assert "precision_out_of_class" not in found


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**16), st.floats(0.2, 5.0))
def test_rotation_scale_and_shift_change_nothing(seed, scale):
    attributes, triplets, _ = random_case(seed)
    rng = np.random.default_rng(seed)
    embeddings = rng.permutation(40)[:, None] ** 2 * np.array([[1.0, 0.0]])
    embeddings = embeddings / 100.0 + 0.001 * rng.random((40, 2))
    rotation, _ = np.linalg.qr(rng.normal(size=(2, 2)))
    evaluator = Triplets(attributes, triplets, k=3)
    moved = scale * (embeddings + 2.0) @ rotation
    assert dict(evaluator.run(moved)) == dict(evaluator.run(embeddings))


def test_triplets_survive_their_file(tmp_path):
    _, triplets, _ = random_case(0)
    path = tmp_path / "deep" / "triplets.csv"
    for drawn in triplets, triplets[:0]:
        save_triplets(path, drawn, "40-abc", "num=200 seed=0")
        found = load_triplets(path, "40-abc", "num=200 seed=0")
        np.testing.assert_array_equal(found, drawn)
    assert [p.name for p in path.parent.iterdir()] == ["triplets.csv"]


def test_triplets_of_other_records_are_refused(tmp_path):
    path = tmp_path / "triplets.csv"
    save_triplets(path, np.array([[0, 1, 2]]), "40-abc", "seed=0")
    with pytest.raises(ValueError, match=r"belong to records 40-abc.*delete the file"):
        load_triplets(path, "41-def", "seed=0")


def test_triplets_drawn_otherwise_are_refused(tmp_path):
    path = tmp_path / "triplets.csv"
    save_triplets(path, np.array([[0, 1, 2]]), "40-abc", "num=1 seed=0")
    message = r"drawn with num=1 seed=0, this run has num=1 seed=1; delete the file"
    with pytest.raises(ValueError, match=message):
        load_triplets(path, "40-abc", "num=1 seed=1")
    with pytest.raises(ValueError, match="must be one line"):
        save_triplets(path, np.array([[0, 1, 2]]), "40-abc", "num=1\nseed=0")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a,b\n",
        "# records 1-a\nanchor,positive,negative\n0,1,2\n",
        "# records 1-a\n# drawn seed=0\nanchor,positive,negative\n1,2\n",
    ],
)
def test_a_file_that_holds_no_triplets_is_refused(tmp_path, text):
    path = tmp_path / "triplets.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"triplets.csv: not .*delete"):
        load_triplets(path, "1-a", "seed=0")


@pytest.mark.parametrize(
    ("triplets", "k", "message"),
    [
        (np.array([[0, 1, 3]]), 30, "0 to 3, there are 3"),
        (np.array([[0, -1, 2]]), 30, "another split"),
        (np.array([[0, 1]]), 30, r"\[T, 3\]"),
        (np.array([[0, 1, 2]]), 0, "at least 1"),
    ],
)
def test_bad_arguments_are_refused(triplets, k, message):
    with pytest.raises(ValueError, match=message):
        Triplets(np.zeros((3, 1), int), triplets, k=k)


def test_bad_embeddings_are_refused():
    evaluator = Triplets(np.zeros((3, 1), int), np.array([[0, 1, 2]]))
    with pytest.raises(ValueError, match="2 embeddings for 3 records"):
        dict(evaluator.run(np.ones((2, 2))))
    with pytest.raises(ValueError, match="not finite"):
        dict(evaluator.run(np.full((3, 2), np.nan)))
    with pytest.raises(ValueError, match="not finite"):
        dict(evaluator.run(np.ones((3, 2)), queries=np.full((3, 2), np.nan)))


def test_triplets_from_before_empty_options_went_are_read(tmp_path):
    path = tmp_path / "triplets.csv"
    old = 'seed=0 relevance={"file": "", "levels": [0.1, 1.0], "name": "hierarchy"}'
    now = 'seed=0 relevance={"levels": [0.1, 1.0], "name": "hierarchy"}'
    save_triplets(path, np.array([[0, 1, 2]]), "40-abc", old)
    assert load_triplets(path, "40-abc", now).tolist() == [[0, 1, 2]]
    with pytest.raises(ValueError, match="drawn with"):
        load_triplets(path, "40-abc", now.replace("0.1", "0.2"))


def test_no_change_of_a_file_of_triplets_is_believed(tmp_path):
    path = tmp_path / "triplets.csv"
    triplets = np.array([[0, 1, 2], [10, 11, 12]])
    save_triplets(path, triplets, "40-abc", "seed=0")
    content = path.read_bytes()
    for i in range(len(content) - 1):
        flipped = content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :]
        for damaged in (flipped, content[:i]):
            path.write_bytes(damaged)
            with pytest.raises(DataError, match=r"triplets\.csv: "):
                load_triplets(path, "40-abc", "seed=0")


def test_damaged_triplets_are_drawn_again(tmp_path, warnings_logged):
    path, triplets = tmp_path / "triplets.csv", np.array([[0, 1, 2], [10, 11, 12]])
    load = lambda: sampled_triplets._load_or_sample(
        path, "40-abc", "seed=0", lambda: triplets
    )
    load()
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"10,11")])
    np.testing.assert_array_equal(load(), triplets)
    assert warnings_logged == [f"{path} is damaged; its triplets are drawn again."]
    assert path.read_bytes() == content
