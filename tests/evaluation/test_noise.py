"""Retrieval with noisy queries against a loop over queries."""

import numpy as np
import pytest

from deeprank_jax import evaluation
from deeprank_jax.configs import base
from deeprank_jax.data import pixel_noise
from deeprank_jax.data.reader import ImageReader
from deeprank_jax.data.records import Records
from deeprank_jax.descriptors.pixels import center_and_normalize, pixels
from deeprank_jax.errors import ConfigError
from deeprank_jax.evaluation import Noise, compare
from deeprank_jax.evaluation import split as split_lib
from deeprank_jax.relevance import Hierarchy, SameClass

SIGMAS = (0.1, 1.0)


@pytest.fixture
def records():
    """Returns twenty classes of three images, and one of a single image."""
    rng = np.random.default_rng(0)
    classes = np.array([*np.repeat(range(20), 3), 20], np.int32)
    drawn = rng.uniform(size=(21, 8, 8, 3))[classes]
    drawn += rng.normal(size=drawn.shape) * 0.5
    images = np.clip(255 * drawn, 0, 255).astype(np.uint8)
    return Records(
        name="shapes/test",
        labels=classes[:, None],
        level_names=("class",),
        label_names=(tuple(f"class {i}" for i in range(len(classes))),),
        read=lambda index: images[index],
        describe=str,
    )


def create_evaluation(records, workdir, evaluators, batch_size=256):
    config = base.get_config()
    config.evaluation.batch_size = batch_size
    return split_lib.SplitEvaluation(
        config,
        "test",
        records,
        ImageReader(records, image_size=8),
        SameClass(),
        workdir,
        evaluators=evaluators,
    )


def measure_by_hand(clean, noisy, classes, where):
    """Returns Recall@1 and the mean cosine, query by query."""
    hits, cosines = [], []
    for i in np.flatnonzero(where):
        others = [j for j in np.flatnonzero(where) if j != i]
        distances = [np.sum(np.square(noisy[i] - clean[j])) for j in others]
        if any(classes[j] == classes[i] for j in others):
            hits.append(classes[others[np.argmin(distances)]] == classes[i])
        lengths = np.linalg.norm(clean[i]) * np.linalg.norm(noisy[i])
        cosines.append(clean[i] @ noisy[i] / lengths)
    return np.mean(hits), np.mean(cosines)


def test_metrics_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 9, 50)
    clean = 2 * rng.normal(size=(9, 5))[classes] + rng.normal(size=(50, 5))
    noisy = [clean + scale * rng.normal(size=clean.shape) for scale in (0.5, 4)]
    where = np.arange(50) % 7 != 3
    evaluator = Noise(classes[:, None], Hierarchy((1.0,)), sigmas=SIGMAS)
    whole = np.ones(50, bool)
    changed = dict(zip(evaluator.changes(), [(x, whole) for x in noisy], strict=True))
    scores = evaluator.measure_changed(clean, where, changed)
    for sigma, rows in zip(SIGMAS, noisy, strict=True):
        recall, cosine = measure_by_hand(clean, rows, classes, where)
        assert scores[f"recall@1_{sigma}"].value == pytest.approx(recall)
        assert scores[f"cosine_{sigma}"].value == pytest.approx(cosine)
    assert scores["recall@1_0.1"].value > scores["recall@1_1.0"].value


def test_a_noisy_image_without_an_embedding_is_a_miss():
    clean = np.eye(2)[[0, 0, 1, 1]]
    evaluator = Noise(np.array([[0], [0], [1], [1]]), Hierarchy((1.0,)), sigmas=(0.1,))
    noisy, ok = clean.copy(), np.array([True, False, True, True])
    noisy[1] = 0
    scores = evaluator.measure_changed(clean, None, {"noise 0.1": (noisy, ok)})
    for name in ("recall@1_0.1", "cosine_0.1"):
        np.testing.assert_array_equal(scores[name].values, [1, 0, 1, 1])
        assert scores[name].counts.all()


@pytest.mark.parametrize("batch_size", [256, 7])
def test_every_system_is_measured_on_the_same_noise(records, tmp_path, batch_size):
    evaluators = {"noise": {"sigmas": SIGMAS}, "retrieval": {}}
    measured = create_evaluation(records, tmp_path, evaluators, batch_size)
    mean_color = lambda images: images.mean(axis=(1, 2))
    half = lambda images: pixels(images)[:, ::2]
    with measured._reader as reader:
        images, _ = reader.load(np.arange(len(records)))
        model = measured.embed(mean_color, "test")
        compared = compare.compare_with_baselines(
            measured, model, {"untrained": pixels, "frozen": half}, mean_color
        )
    systems = {"model": mean_color, "untrained": pixels, "frozen": half}
    systems["pixels"] = pixels
    for sigma in SIGMAS:
        noisy = pixel_noise.add_noise(images, sigma, np.arange(len(images)))
        for system, embed in systems.items():
            rows = embed(images), embed(noisy)
            if system in ("frozen", "pixels"):
                mean = rows[0].mean(axis=0, dtype=np.float64)
                rows = [center_and_normalize(x, mean) for x in rows]
            where = np.ones(len(images), bool)
            recall, cosine = measure_by_hand(*rows, records.labels[:, 0], where)
            of_noise = compared.results["noise"]
            assert of_noise[f"recall@1_{sigma}"][system] == pytest.approx(recall)
            assert of_noise[f"cosine_{sigma}"][system] == pytest.approx(cosine)
            ends = compared.intervals["noise"][f"recall@1_{sigma}"][system]
            assert ends["low"] <= recall <= ends["high"]
    clean = compared.results["retrieval"]["recall@1"]["pixels"]
    assert clean > compared.results["noise"]["recall@1_1.0"]["pixels"]


def test_validation_measures_the_same(records, tmp_path):
    measured = create_evaluation(records, tmp_path, {"noise": {"sigmas": SIGMAS}})
    with measured._reader:
        embedded = measured.embed(pixels, "test")
        changed = measured.embed_changed(pixels, "test")
    values = split_lib.flatten(measured.measure(*embedded, changed))
    scores = measured.measure_queries(*embedded, changed=changed).scores
    assert values == {name: x.value for name, x in scores.items()}
    assert len(values) == 4


def test_embeddings_alone_have_no_such_metrics(records, tmp_path):
    measured = create_evaluation(records, tmp_path, {"noise": {}, "retrieval": {}})
    with measured._reader:
        embedded = measured.embed(pixels, "test")
        compared = compare.compare_with_baselines(
            measured, embedded, {"untrained": pixels}
        )
    assert compared.results["noise"] == {}
    assert compared.results["retrieval"]
    assert measured.measure(*embedded)["noise"] == {}
    assert dict(measured.evaluators["noise"].run(*embedded)) == {}


def test_rows_of_another_network_are_refused():
    evaluator = Noise(np.zeros((3, 1), int), SameClass(), sigmas=(0.1,))
    changed = {"noise 0.1": (np.ones((3, 5)), np.ones(3, bool))}
    with pytest.raises(ValueError, match="both must come from the same model"):
        evaluator.measure_changed(np.ones((3, 4)), None, changed)


@pytest.mark.parametrize(
    ("sigmas", "message"),
    [
        ((), r"evaluators\.noise\.sigmas must hold at least one number"),
        (0.1, r"evaluators\.noise\.sigmas must hold at least one number, as"),
        ((0.1, -0.1), r"evaluators\.noise\.sigmas must be from 0 to 1.* got -0\.1"),
        ((float("nan"),), r"evaluators\.noise\.sigmas must be from 0 to 1.* got nan"),
        ((25,), r"evaluators\.noise\.sigmas must be from 0 to 1.* got 25"),
    ],
)
def test_deviations_out_of_range_are_refused(sigmas, message):
    context = {"labels": np.zeros((2, 1), int), "relevance": SameClass()}
    with pytest.raises(ConfigError, match=message):
        evaluation.EVALUATORS.create({"name": "noise", "sigmas": sigmas}, **context)


def test_equal_deviations_count_once():
    evaluator = Noise(np.zeros((2, 1), int), SameClass(), sigmas=(0.1, 0.2, 0.1))
    assert [*evaluator.changes()] == ["noise 0.1", "noise 0.2"]
