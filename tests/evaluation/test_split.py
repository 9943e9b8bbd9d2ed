import pathlib
import re

from deeprank_jax.configs import base
import numpy as np
import pytest

from deeprank_jax.data.rated_triplets import RatedTriplets
from deeprank_jax.data.reader import ImageReader
from deeprank_jax.data.records import Records
from deeprank_jax.descriptors.pixels import pixels
from deeprank_jax.evaluation import compare
from deeprank_jax.evaluation import split as split_lib
from deeprank_jax.relevance import SameClass
from deeprank_jax.report import page


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
        return compare.compare_with_baselines(split_evaluation, embedded, pixels)[0]


def test_every_number_has_its_interval_over_classes(tmp_path):
    """Classes, not queries, are drawn: of two classes a draw has one, or both."""
    measured = create_evaluation([0, 0, 0, 0, 1, 1], tmp_path)
    model = np.array([[0.0], [0.1], [0.2], [6.0], [9.0], [8.0]]), np.ones(6, bool)
    with measured._reader:
        untrained = measured.scores(*measured.embed(pixels, "untrained"))
        results, intervals = compare.compare_with_baselines(measured, model, pixels)
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
    # 3 of 4 queries of the first class are right, and 2 of 2 of the second.
    assert results["retrieval"]["recall@1"]["model"] == pytest.approx(5 / 6)
    ends = intervals["retrieval"]["recall@1"]["model"]
    assert ends == {"low": 0.75, "high": 1.0}
    better = intervals["retrieval"]["recall@1"]["untrained"]["model_better_by"]
    own = untrained["retrieval/recall@1"].values
    assert better[1:] == sorted([0.75 - own[:4].mean(), 1.0 - own[4:].mean()])


def test_both_evaluators_measure_every_system(tmp_path):
    results = measure(create_evaluation([0, 0, 1, 1, 2, 3], tmp_path))
    assert results.keys() == {"retrieval", "triplets"}
    for metrics in results.values():
        for name, systems in metrics.items():
            assert page._explain(name), name
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
        results, intervals = compare.compare_with_baselines(measured, model, untrained)
    for systems in (row for metrics in results.values() for row in metrics.values()):
        assert systems.keys() == {"model", "untrained", "pixels"}
    # The last, alone of its class then, is no query.
    counted = results["retrieval"]["num_queries"]
    assert counted == dict.fromkeys(counted, 4)
    alone = measured.scores(model[0], np.arange(6) != 4)
    told = results["triplets"]["precision"]["model"]
    assert told == alone["triplets/precision"].value
    assert "1 records that model has an embedding of are left out" in caplog.text
    assert intervals["retrieval"]["recall@1"]["untrained"]["low"] >= 0


def test_a_baseline_without_any_embedding_ends_no_run(tmp_path):
    measured = create_evaluation([0, 0, 1, 1, 2, 2], tmp_path)
    nothing = lambda images: np.full((len(images), 3), np.nan)
    with measured._reader:
        model = measured.embed(pixels, "test")
        results, intervals = compare.compare_with_baselines(measured, model, nothing)
    assert set(results["triplets"]["precision"].values()) == {0.0}
    assert intervals["triplets"]["precision"] == {}


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
    assert warning.startswith("shapes/test: evaluated without triplets")
    assert reason in warning
    assert not (tmp_path / "triplets" / "test.csv").exists()


def test_an_option_that_cannot_be_is_still_refused(tmp_path):
    with pytest.raises(ValueError, match="out_of_class must be at least 0"):
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
        {"relevance.levels": (0.5,)},
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


def test_what_people_rated_is_measured_beside_what_was_drawn(tmp_path):
    records = create_records([0, 0, 1, 1, 2, 3])
    rated = RatedTriplets(indices=np.array([[0, 1, 2], [4, 0, 5]]), num_in_file=2)
    measured = split_lib.SplitEvaluation(
        create_config(),
        "test",
        records,
        ImageReader(records, image_size=8),
        SameClass(),
        tmp_path,
        rated=rated,
    )
    results = measure(measured)
    assert results.keys() == {"retrieval", "triplets", "rated"}
    assert results["rated"]["num_triplets"]["model"] == 2
    assert results["triplets"]["num_triplets"]["model"] == 50
    embeddings = np.array([[0.0], [1.0], [3.0], [4.0], [0.1], [9.0]])
    found = measured.measure(embeddings, np.ones(6, bool))["rated"]
    assert found["precision"] == 1.0
    assert found["score_at_30"] == 2
    embeddings[2] = 0.5
    assert measured.measure(embeddings, np.ones(6, bool))["rated"]["precision"] == 0.5


def test_a_split_of_which_nothing_was_rated_is_measured_without(tmp_path):
    records = create_records([0, 0, 1, 1])
    rated = RatedTriplets(indices=np.zeros((0, 3), np.int64), num_in_file=2)
    measured = split_lib.SplitEvaluation(
        create_config(), "test", records, ImageReader(records, image_size=8),
        SameClass(), tmp_path, rated=rated,
    )  # fmt: skip
    assert measured.evaluators.keys() == {"retrieval", "triplets"}
