import dataclasses
import json
import pathlib
import re
from typing import ClassVar

import numpy as np
import pytest
import scipy

from deeprank_jax import evaluation
from deeprank_jax.configs import base
from deeprank_jax.data.rated_triplets import RatedTriplets
from deeprank_jax.data.reader import ImageReader
from deeprank_jax.data.records import Records
from deeprank_jax.descriptors.pixels import pixels
from deeprank_jax.errors import ConfigError, DataError
from deeprank_jax.evaluation import best_metric, compare, rankings
from deeprank_jax.evaluation import split as split_lib
from deeprank_jax.relevance import SameClass
from deeprank_jax.sampling.pair_sampler import ListedPairs


def create_records(classes):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (len(classes), 8, 8, 3), np.uint8)
    return Records(
        name="shapes/test",
        labels=np.array(classes, np.int32)[:, None],
        level_names=("class",),
        label_names=(tuple(f"class {i}" for i in range(len(classes))),),
        read=lambda index: images[index],
        describe=str,
    )


def create_config(**values):
    config = base.get_config()
    config.evaluation.evaluators.triplets.num = 50
    config.update_from_flattened_dict(values)
    return config


def create_evaluation(classes, workdir, **values):
    records = create_records(classes)
    return split_lib.SplitEvaluation(
        create_config(**values),
        "test",
        records,
        ImageReader(records, image_size=8),
        SameClass(),
        workdir,
    )


def measure(split_evaluation):
    with split_evaluation._reader:
        embedded = split_evaluation.embed(pixels, "test")
        compared = compare.compare_with_baselines(
            split_evaluation, embedded, {"untrained": pixels}, pixels
        )
    return compared.results


def test_every_number_has_its_interval_over_classes(tmp_path):
    """Classes, not queries, are drawn: a draw has twelve, each right or wrong."""
    measured = create_evaluation(np.repeat(range(12), 2).tolist(), tmp_path)
    # Both queries of six classes are right, and both of six others wrong.
    right = np.array([[x, x + 1] for x in range(100, 700, 100)])
    wrong = np.array([[x, x + 5] for x in (0, 1, 20, 21, 40, 41)])
    model = np.concatenate([right, wrong]).reshape(-1, 1), np.ones(24, bool)
    with measured._reader:
        compared = compare.compare_with_baselines(
            measured, model, {"untrained": pixels}
        )
    results, intervals = compared.results, compared.intervals
    for evaluator, metrics in results.items():
        counts = {name for name in metrics if name.startswith("num_")}
        assert counts
        assert intervals[evaluator].keys() == metrics.keys() - counts
        for name, systems in intervals[evaluator].items():
            assert systems.keys() == metrics[name].keys()
            assert "model_better_by" not in systems["model"]
            for system, told in systems.items():
                value = metrics[name][system]
                assert told["low"] <= value <= told["high"]
                if system != "model":
                    better, low, high = told["model_better_by"]
                    assert better == metrics[name]["model"] - value
                    assert low <= better <= high
    assert results["retrieval"]["recall@1"]["model"] == 0.5
    ends = intervals["retrieval"]["recall@1"]["model"]
    low, high = scipy.stats.binom.ppf([0.025, 0.975], 12, 0.5) / 12
    # Queries, drawn each by itself, would give .29 and .71.
    assert ends["low"] == pytest.approx(low, abs=0.01)
    assert ends["high"] == pytest.approx(high, abs=0.01)


def test_few_classes_have_no_intervals(tmp_path):
    for num_classes in (9, 10):
        classes = np.repeat(range(num_classes), 2).tolist()
        measured = create_evaluation(classes, tmp_path / str(num_classes))
        with measured._reader:
            embedded = measured.embed(pixels, "test")
            compared = compare.compare_with_baselines(
                measured, embedded, {"untrained": pixels}
            )
        assert compared.results["retrieval"]["recall@1"].keys() > {"model"}
        for metrics in compared.intervals.values():
            for systems in metrics.values():
                assert bool(systems) == (num_classes == 10)


def test_both_evaluators_measure_every_system(tmp_path):
    results = measure(create_evaluation([0, 0, 1, 1, 2, 3], tmp_path))
    assert results.keys() == {"retrieval", "triplets"}
    for metrics in results.values():
        for systems in metrics.values():
            assert systems.keys() == {"model", "untrained", "pixels"}
            assert np.isfinite(list(systems.values())).all()
    assert results["triplets"]["num_triplets"]["model"] == 50


def test_all_systems_are_measured_on_the_records_that_all_have(tmp_path, caplog):
    classes = [0, 0, 1, 1, 2, 2]
    measured = create_evaluation(classes, tmp_path)
    model = np.array([[0.0], [0.1], [5.0], [5.1], [9.0], [9.1]]), np.ones(6, bool)

    def untrained(images):
        embedded = pixels(images)
        embedded[4] = np.nan
        return embedded

    with measured._reader:
        compared = compare.compare_with_baselines(
            measured, model, {"untrained": untrained}
        )
    results = compared.results
    for systems in (row for metrics in results.values() for row in metrics.values()):
        assert systems.keys() == {"model", "untrained", "pixels"}
    # The last, alone of its class then, is no query.
    counted = results["retrieval"]["num_queries"]
    assert counted == dict.fromkeys(counted, 4)
    alone = measured.measure_queries(model[0], np.arange(6) != 4).scores
    told = results["triplets"]["precision"]["model"]
    assert told == alone["triplets/precision"].value
    assert "1 records that model has an embedding of are left out" in caplog.text


def test_a_baseline_without_any_embedding_ends_no_run(tmp_path):
    measured = create_evaluation([0, 0, 1, 1, 2, 2], tmp_path)
    nothing = lambda images: np.full((len(images), 3), np.nan)
    with measured._reader:
        model = measured.embed(pixels, "test")
        compared = compare.compare_with_baselines(
            measured, model, {"untrained": nothing}
        )
    assert set(compared.results["triplets"]["precision"].values()) == {0.0}
    assert compared.intervals["triplets"]["precision"] == {}


@pytest.mark.parametrize(
    ("classes", "reason"),
    [
        ([0, 1, 2, 3], "None of the 4 records is relevant to another"),
        ([0, 0, 0], "No triplet was found"),
    ],
    ids=["each_alone", "one_class"],
)
def test_a_split_without_triplets_is_measured_without_them(
    classes, reason, tmp_path, caplog
):
    results = measure(create_evaluation(classes, tmp_path))
    assert results.keys() == {"retrieval"}
    (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert warning.startswith("test: evaluated without triplets. ")
    assert reason in warning
    assert not (tmp_path / "triplets" / "test.csv").exists()


def test_an_option_that_cannot_be_is_still_refused(tmp_path):
    with pytest.raises(ValueError, match="out_of_class must be in"):
        create_evaluation(
            [0, 0, 1, 1],
            tmp_path,
            **{"evaluation.evaluators.triplets.out_of_class": 2.0},
        )


@pytest.mark.parametrize(
    "change",
    [
        {"evaluation.evaluators.triplets.num": 51},
        {"evaluation.evaluators.triplets.out_of_class": 0.3},
        {"seed": 1},
        {"triplets.category_level": 0},
        {"triplets.positive_cap": 0.5},
        {"triplets.min_relevance_gap": 0.02},
        {"relevance.name": "hierarchy"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_triplets_are_drawn_once_and_not_used_with_other_options(change, tmp_path):
    classes = [0, 0, 1, 1, 2, 3]
    create_evaluation(classes, tmp_path)
    written = (tmp_path / "triplets" / "test.csv").read_text()
    create_evaluation(classes, tmp_path)
    assert (tmp_path / "triplets" / "test.csv").read_text() == written
    name = next(iter(change)).rsplit(".", 1)[1] if "." in next(iter(change)) else "seed"
    with pytest.raises(ValueError, match=rf"drawn with .*{name}.* delete the file"):
        create_evaluation(classes, tmp_path, **change)


def test_the_python_of_the_page_runs():
    """Every metric that is measured when asked for, and every interval."""
    page = pathlib.Path(__file__).parents[2] / "docs" / "evaluation.md"
    code = "".join(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 12, 60)
    values = {
        "labels": np.stack([classes // 6, classes // 3, classes], axis=1),
        "embeddings": rng.normal(size=(12, 4))[classes] + rng.normal(size=(60, 4)),
        "others": rng.normal(size=(60, 4)),
    }
    exec(code, values)
    bootstrap = values["bootstrap"]
    found = bootstrap.difference(values["ours"], values["theirs"])
    assert 0 < found.low < found.value < found.high


def test_rated_triplets_are_measured_beside_the_sampled_ones(tmp_path):
    measured = create_rated_evaluation(tmp_path, [[0, 1, 2], [4, 0, 5]])
    results = measure(measured)
    assert results.keys() == {"retrieval", "triplets", "rated"}
    assert results["rated"]["num_triplets"]["model"] == 2
    assert results["triplets"]["num_triplets"]["model"] == 50
    embeddings = np.array([[0.0], [1.0], [3.0], [4.0], [0.1], [9.0]])
    metrics = measured.measure(embeddings, np.ones(6, bool))["rated"]
    assert metrics["precision"] == 1.0
    assert metrics["score_at_30"] == 2
    embeddings[2] = 0.5
    assert measured.measure(embeddings, np.ones(6, bool))["rated"]["precision"] == 0.5
    facts = measured.evaluators["rated"].facts()
    assert facts == {"Rated triplets": "2 of 2 triplets"}


def create_rated_evaluation(workdir, triplets):
    records = create_records([0, 0, 1, 1, 2, 3])
    indices = np.array(triplets, np.int64).reshape(-1, 3)
    ratings = RatedTriplets(indices=indices, num_in_file=2)
    return split_lib.SplitEvaluation(
        create_config(),
        "test",
        records,
        ImageReader(records, image_size=8),
        SameClass(),
        workdir,
        evaluators={
            "retrieval": {},
            "triplets": {"num": 50},
            "rated_triplets": {"file": "rated.csv"},
        },
        read_ratings=lambda file: {"test": ratings},
    )


def test_a_split_without_rated_triplets_is_measured_without(tmp_path, caplog):
    measured = create_rated_evaluation(tmp_path, [])
    assert measured.evaluators.keys() == {"retrieval", "triplets"}
    assert "evaluated without rated_triplets. rated.csv: no triplet" in caplog.text


def built_in():
    """Returns the evaluators of the package; other tests may have registered more."""
    kinds = evaluation.EVALUATORS.items()
    return {x: kind for x, kind in kinds if kind.__module__.startswith("deeprank_jax.")}


EVERY = {
    "retrieval": {"ks": (1, 3)},
    "triplets": {"num": 50, "k": 2},
    "rated_triplets": {"file": "rated.csv"},
    "clustering": {},
    "hierarchical": {},
    "prefixes": {"dims": (2, 4)},
    "pairs": {"file": "pairs.csv"},
    "codes": {},
    "relevant_retrieval": {"ks": (1, 2), "min_relevance": 1.0},
    "noise": {"sigmas": (0.1, 0.2)},
    "shared_attributes": {"names": ("class",), "steps": {"number": 1}},
}


def test_every_metric_is_described_and_every_description_is_measured(tmp_path):
    records = create_records([0, 0, 1, 1, 2, 3])
    numbers = {"number": np.array([0, 0, 1, 1, 2, 2], np.int32)}
    records = dataclasses.replace(records, columns=numbers)
    ratings = RatedTriplets(indices=np.array([[0, 1, 2]]), num_in_file=1)
    indices = np.array([[0, 1], [1, 2]], np.int32)
    pairs = ListedPairs(
        path="pairs.csv", indices=indices, is_similar=np.array([True, False])
    )
    measured = split_lib.SplitEvaluation(
        create_config(**{"sampler.category_level": 0}),
        "test",
        records,
        ImageReader(records, image_size=8),
        SameClass(),
        tmp_path,
        evaluators=EVERY,
        read_ratings=lambda file: {"test": ratings},
        read_pairs=lambda file: pairs,
    )
    results = measure(measured)
    names = [
        f"{part}/{metric}" for part, metrics in results.items() for metric in metrics
    ]
    described = best_metric.describe_metrics(EVERY)
    # Each of these kinds of negatives is measured only where there are such triplets.
    optional = {
        f"{part}/precision_{kind}_class"
        for part in ("triplets", "rated")
        for kind in ("in", "out_of")
    }
    assert set(names) <= described.keys()
    assert described.keys() - set(names) <= optional
    assert all(text.endswith(".") and "{" not in text for text in described.values())
    assert set(EVERY) == built_in().keys()


def test_the_page_names_every_metric():
    page = (pathlib.Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
    values = dict(ks="k", k=30, dims=16, sigmas=0.1, name="NAME", combination="A+B")
    values |= dict(attribute="NAME", step="STEP")
    names = {name for kind in built_in().values() for name in kind.METRICS}
    assert len(names) >= 15
    for name in names:
        assert f"`{name.format(**values)}`" in page, name


def test_the_context_is_that_which_evaluators_may_take(tmp_path):
    records = create_records([0, 0, 1, 1])
    context = split_lib.create_context(
        create_config(), "test", records, SameClass(), tmp_path
    )
    assert tuple(sorted(context)) == tuple(sorted(evaluation.CONTEXT))


def test_the_nearest_names_come_first_where_the_best_metric_is_unknown():
    known = best_metric.describe_metrics(EVERY)
    best_metric.check_best_metric("hierarchical/h_ap", known)
    message = (
        r"best_metric='retrieval/recal@3' is not measured; choose one of "
        r"retrieval/recall@3, retrieval/recall@1, .*clustering/nmi"
    )
    with pytest.raises(ConfigError, match=message):
        best_metric.check_best_metric("retrieval/recal@3", known)
    # Counts, and cosines, which are not better for being larger.
    for name in ("retrieval/num_queries", "shared_attributes/same_class"):
        assert name in known
        with pytest.raises(ConfigError, match="is not measured"):
            best_metric.check_best_metric(name, known)


@pytest.mark.parametrize(
    ("evaluators", "message"),
    [
        ({"retreival": {}}, r"evaluators.retreival is not known \(did you mean 'ret"),
        ({"triplets": {"K": 3}}, "evaluators.triplets.K is not an option"),
        (
            {"rated_triplets": {}},
            "needs config.evaluation.evaluators.rated_triplets.fi",
        ),
        ({"retrieval": {"ks": (0,)}}, "evaluators.retrieval.ks must be cut-offs"),
        ({"triplets": {"k": 0}}, "evaluators.triplets.k must be at least 1"),
        ({"triplets": {"out_of_class": 2.0}}, "triplets.out_of_class must be in"),
        ({"clustering": {"num_restarts": 0}}, "clustering.num_restarts must be at lea"),
    ],
)
def test_an_option_that_an_evaluator_cannot_use_is_named_in_full(
    evaluators, message, tmp_path
):
    records = create_records([0, 0, 1, 1])
    with pytest.raises(ConfigError, match=message):
        split_lib.SplitEvaluation(
            create_config(),
            "test",
            records,
            ImageReader(records, image_size=8),
            SameClass(),
            tmp_path,
            evaluators=evaluators,
        )


def test_an_evaluator_of_ones_own_needs_no_change_elsewhere(tmp_path, monkeypatch):
    # Other tests look at all kinds, and may run later.
    kinds = dict(evaluation.EVALUATORS._kinds)
    monkeypatch.setattr(evaluation.EVALUATORS, "_kinds", kinds)

    @evaluation.register_evaluator("test_spread")
    class Spread(evaluation.Evaluator):
        METRICS: ClassVar = {"length@{power}": "Mean length to the power {power}."}

        def __init__(self, labels, *, power=1):
            self._labels, self._power = labels, power

        def run(self, embeddings, where=None, *, queries=None):
            lengths = np.linalg.norm(embeddings, axis=1)
            yield f"length@{self._power}", float(np.mean(lengths**self._power))

    evaluators = {"test_spread": {"power": 2}}
    records = create_records([0, 0, 1, 1])
    measured = split_lib.SplitEvaluation(
        create_config(),
        "test",
        records,
        ImageReader(records, image_size=8),
        SameClass(),
        tmp_path,
        evaluators=evaluators,
    )
    results = measure(measured)
    assert results["test_spread"]["length@2"]["pixels"] == pytest.approx(1.0)
    described = best_metric.describe_metrics(evaluators)
    assert described == {"test_spread/length@2": "Mean length to the power 2."}
    with pytest.raises(ConfigError, match="an evaluator is a class"):
        evaluation.register_evaluator("test_function")(len)


def test_the_ranking_of_the_model_is_that_of_a_search(tmp_path):
    """The report shows the neighbours from which the metrics were computed."""
    rng = np.random.default_rng(0)
    classes = [*rng.integers(0, 4, 30).tolist(), 9]
    measured = create_evaluation(classes, tmp_path)
    model = rng.normal(size=(31, 3)).astype(np.float32), rng.random(31) < 0.9
    with measured._reader:
        compared = compare.compare_with_baselines(measured, model, {})
    expected = rankings.rank_records(np.array(classes), *model)
    assert expected.neighbors.shape == (model[1].sum(), 8)
    for field in dataclasses.fields(expected):
        value = getattr(compared.ranking, field.name)
        np.testing.assert_array_equal(value, getattr(expected, field.name))


def test_triplets_stored_by_an_older_version_are_used(tmp_path):
    """Their options of the relevance include those of other kinds, all empty."""
    create_evaluation([0, 0, 1, 1, 2, 3], tmp_path)
    path = tmp_path / "triplets" / "test.csv"
    lines = path.read_text().splitlines()
    before, relevance = lines[1].split("relevance=")
    older = {**json.loads(relevance), "file": "", "weights": {}, "scale": 0.0}
    lines[1] = f"{before}relevance={json.dumps(older, sort_keys=True)}"
    del lines[2]  # The digest.
    path.write_text("\n".join(lines) + "\n")
    create_evaluation([0, 0, 1, 1, 2, 3], tmp_path)
    path.write_text("\n".join(lines).replace('"file": ""', '"file": "x"') + "\n")
    with pytest.raises(DataError, match=r"drawn with .* delete the file"):
        create_evaluation([0, 0, 1, 1, 2, 3], tmp_path)


def test_a_network_without_a_finite_embedding_is_refused(tmp_path, warnings_logged):
    measured = create_evaluation([0, 0, 1, 1], tmp_path)
    nothing = lambda images: np.full((len(images), 3), np.nan)
    with measured._reader:
        with pytest.raises(DataError, match="test: no embedding of a batch is finite"):
            measured.embed(nothing, "test", must_be_finite=True)
        one = lambda images: np.where(np.arange(len(images)) == 2, np.inf, 1.0)[:, None]
        _, ok = measured.embed(one, "test", must_be_finite=True)
    assert ok.tolist() == [True, True, False, True]
    assert "some embeddings are not finite" in warnings_logged[-1]
