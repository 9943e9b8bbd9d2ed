import numpy as np
import pytest

from deeprank_jax import similarities
from deeprank_jax.errors import ConfigError, DataError

STAGED = ["linear", "projected_cosine", "simnet"]
FEW = {"pair_steps": 30, "hard_steps": 20, "hard_pool": 200, "batch_size": 16}


def create(name, **options):
    options = {**FEW, "random_steps": 10, "weight_std": 0.3, **options}
    if name != "linear":
        options.setdefault("width", 24)
    return similarities.create_learned(name, options)


def create_embeddings(num_classes=8, num=10, dim=6, seed=0, noise=2.0):
    """Classes that differ in the first half of the dimensions, the rest is noise."""
    rng = np.random.default_rng(seed)
    centers = np.repeat(rng.normal(size=(num_classes, dim)), num, axis=0)
    centers[:, dim // 2 :] = 0
    rows = centers + rng.normal(size=centers.shape) * np.repeat([0.3, noise], dim // 2)
    return rows, np.repeat(np.arange(num_classes), num)


def score_by_numpy(name, arrays, a, b):
    """The formula of each docstring."""
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    layer = lambda x, at: x @ arrays[f"{at}.kernel"] + arrays[f"{at}.bias"]
    if name == "linear":
        return (a * b) @ arrays["weights"]
    if name == "projected_cosine":
        a, b = (layer(np.maximum(0, layer(x, "first")), "second") for x in (a, b))
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        return np.sum(a * b, axis=1) / norms
    x = np.concatenate([a, b], axis=1)
    x = np.maximum(0, layer(np.maximum(0, layer(x, "first")), "second"))
    return layer(x, "score")[:, 0]


@pytest.mark.parametrize("name", STAGED)
def test_a_score_is_the_formula(name):
    rows, labels = create_embeddings()
    similarity = create(name)
    similarities.train(similarity, rows, labels)
    a, b = rows, rows[::-1]
    expected = score_by_numpy(name, similarity.arrays(), a, b)
    if name == "simnet":
        backward = score_by_numpy(name, similarity.arrays(), b, a)
        assert np.abs(expected - backward).max() > 1e-3
        expected = (expected + backward) / 2
    scores = similarity(a, b)
    assert np.ptp(scores) > 0.1
    np.testing.assert_allclose(scores, expected, atol=1e-6)
    # The length of an embedding says nothing.
    np.testing.assert_allclose(similarity(7 * a, b), scores, atol=1e-6)


def test_one_order_alone_is_not_symmetric():
    rows, labels = create_embeddings()
    one, both = create("simnet", symmetric=False), create("simnet")
    similarities.train(one, rows, labels)
    both.restore(one.arrays(), 6)
    a, b = rows, rows[::-1]
    forward, backward = one(a, b), one(b, a)
    assert np.abs(forward - backward).max() > 1e-3
    np.testing.assert_array_equal(both(a, b), both(b, a))
    np.testing.assert_allclose(both(a, b), (forward + backward) / 2, atol=1e-6)


def test_the_first_stage_learns_the_cosine_of_unseen_pairs():
    rows, labels = create_embeddings(dim=8)
    simnet = create(
        "simnet",
        width=128,
        random_steps=1500,
        batch_size=200,
        rate=3e-3,
        weight_std=0.1,
    )
    first = next(simnet.stages(rows, labels))
    assert first["random_error"] <= 0.02
    untrained = create("simnet", width=128, random_steps=0)
    # The mean distance of a uniform cosine from 0.
    assert next(untrained.stages(rows, labels))["random_error"] > 0.4


@pytest.mark.parametrize("loss", ["l1", "mse"])
def test_the_second_stage_moves_pairs_apart(loss):
    rows, labels = create_embeddings(noise=0.6)
    similarity = create(
        "projected_cosine", pair_steps=300, hard_steps=0, rate=0.01, loss=loss
    )
    unseen, unseen_labels = create_embeddings(num=30, noise=0.6)
    a, b = unseen, np.roll(unseen, 17, axis=0)
    is_similar = unseen_labels == np.roll(unseen_labels, 17)
    gaps = []
    for _ in similarity.stages(rows, labels):
        scores = similarity(a, b)
        gaps.append(scores[is_similar].mean() - scores[~is_similar].mean())
    assert len(gaps) == 2
    assert gaps[1] > gaps[0] + 0.1


def test_the_third_stage_learns_the_hard_pairs():
    rows, labels = create_embeddings(noise=0.6)
    losses = [
        similarities.train(create("simnet", hard_steps=steps), rows, labels)
        for steps in (1, 400)
    ]
    assert losses[0]["pair_loss"] == losses[1]["pair_loss"]
    assert losses[1]["hard_loss"] < losses[0]["hard_loss"] / 2


def test_linear_starts_as_the_cosine_and_weighs_what_tells_classes_apart():
    rows, labels = create_embeddings()
    linear = create("linear", random_steps=0, pair_steps=500, rate=0.01, hard_steps=0)
    stages = linear.stages(rows, labels)
    assert next(stages)["random_error"] < 1e-6
    np.testing.assert_array_equal(linear.arrays()["weights"], np.ones(6))
    assert len(list(stages)) == 1
    weights = linear.arrays()["weights"]
    assert weights[:3].min() > weights[3:].max()


def test_the_hard_pairs_are_those_with_the_largest_errors():
    rows, labels = create_embeddings()
    linear = create("linear", pair_steps=0, hard_share=0.1, hard_margin=0.5)
    next(linear.stages(rows, labels))
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    weights = np.array([3.0, 1, 1, 1, 1, 1], np.float32)
    linear.restore({"weights": weights}, 6)

    class Drawn:
        def draw(self, rng, num):
            pairs = np.random.default_rng(0).integers(0, 80, (num, 2))
            return pairs, np.arange(num) % 2 == 0

    a, b, targets = linear._hardest(rows, Drawn(), None)
    pairs, is_similar = Drawn().draw(None, 200)
    cosines = np.sum(rows[pairs[:, 0]] * rows[pairs[:, 1]], axis=1)
    signs = np.where(is_similar, 1, -1)
    errors = [
        abs(float((rows[i] * rows[j]) @ weights) - (cosine + 0.2 * sign))
        for (i, j), cosine, sign in zip(pairs, cosines, signs, strict=True)
    ]
    expected = []
    for kind in (1, -1):
        of_kind = [i for i in range(200) if signs[i] == kind]
        expected += sorted(of_kind, key=lambda i: -errors[i])[:10]
    np.testing.assert_allclose(a, rows[pairs[expected, 0]], atol=1e-6)
    np.testing.assert_allclose(b, rows[pairs[expected, 1]], atol=1e-6)
    moved = cosines[expected] + 0.5 * signs[expected]
    np.testing.assert_allclose(targets, moved, atol=1e-6)


@pytest.mark.parametrize("name", STAGED)
def test_a_seed_decides_every_bit(name):
    rows, labels = create_embeddings()

    def train(seed):
        similarity = create(name)
        metrics = similarities.train(similarity, rows, labels, seed=seed)
        return metrics, similarity.arrays()

    (metrics, arrays), (again, same) = train(1), train(1)
    assert metrics == again
    assert metrics.keys() == {"random_error", "pair_loss", "hard_loss"}
    for key, array in arrays.items():
        np.testing.assert_array_equal(array, same[key])
    _, other = train(2)
    assert any((array != other[key]).any() for key, array in arrays.items())


@pytest.mark.parametrize("name", STAGED)
def test_it_is_as_before_after_it_is_restored(name):
    rows, labels = create_embeddings()
    trained = create(name)
    similarities.train(trained, rows, labels)
    restored = create(name)
    restored.restore(trained.arrays(), 6)
    np.testing.assert_array_equal(restored(rows, rows[::-1]), trained(rows, rows[::-1]))
    with pytest.raises(ValueError, match=r"float32 \[|it holds \[\]"):
        create(name).restore(trained.arrays(), 7)
    with pytest.raises(ValueError, match=r"it holds \[\], not \["):
        create(name).restore({}, 6)


@pytest.mark.parametrize("name", STAGED)
def test_one_that_is_not_trained_is_refused(name):
    rows, _ = create_embeddings()
    with pytest.raises(DataError, match="has not been trained: train it, or load it"):
        create(name)(rows, rows)


def test_embeddings_that_do_not_fit_are_refused():
    rows, labels = create_embeddings()
    similarity = create("linear")
    similarities.train(similarity, rows, labels)
    with pytest.raises(
        DataError, match="trained on embeddings of 6 numbers, and these"
    ):
        similarity(rows[:, :5], rows[:, :5])
    with pytest.raises(DataError, match="80 embeddings and 79 labels: give one label"):
        similarities.train(similarity, rows, labels[1:])
    similarity.restore({"weights": np.full(6, np.nan, np.float32)}, 6)
    with pytest.raises(DataError, match="gives 80 of 80 pairs no finite score: train"):
        similarity(rows, rows)
    rows[3] = np.inf
    with pytest.raises(
        DataError, match="1 of 80 embeddings of the training set are no"
    ):
        similarities.train(similarity, rows, labels)


def test_a_training_that_diverges_is_an_error():
    rows, labels = create_embeddings()
    with pytest.raises(
        DataError, match="loss on pairs is not finite: train again at a"
    ):
        similarities.train(
            create("linear", random_steps=0, rate=1e38, loss="mse"), rows, labels
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "l2"}, "similarity.loss must be one of l1, mse, got 'l2'"),
        ({"width": 0}, "similarity.width must be at least 1, got 0"),
        ({"pair_steps": -1}, "similarity.pair_steps must be 0 or more, got -1"),
        ({"hard_share": 1.5}, "hard_share must be above 0 and at most 1, got 1.5"),
        ({"rate": 0.0}, "similarity.rate must be above 0, got 0.0"),
        ({"pair_margin": float("nan")}, "pair_margin must be 0 or more, got nan"),
        ({"batch_size": "many"}, "similarity.batch_size='many' is not of the type int"),
        (
            {"widht": 3},
            r"'widht' is not an option of the similarity 'simnet' \(did you",
        ),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        create("simnet", **options)
