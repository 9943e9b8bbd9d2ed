"""Mean cosines by shared attributes, against a loop over all pairs."""

import itertools
import re

import numpy as np
import pytest

from deeprank_jax.data.records import Records
from deeprank_jax.errors import ConfigError, DataError
from deeprank_jax.evaluation import EVALUATORS, SharedAttributes, bootstrap

NAMES = ("digit", "parity", "size")
NUMBERS = np.array([0, 2, 4, 6, 8, 1, 3, 5, 7, 9])


def create_records(num=60, seed=0):
    """Returns records with the levels parity > digit, and a column size."""
    rng = np.random.default_rng(seed)
    digit = rng.integers(0, 10, num)
    labels = np.stack([digit // 5, digit], axis=1).astype(np.int32)
    size = rng.integers(0, 3, num).astype(np.int32)
    return Records(
        name="digits/test",
        labels=labels,
        level_names=("parity", "digit"),
        label_names=(("even", "odd"), tuple(map(str, NUMBERS))),
        read=lambda index: b"",
        describe=str,
        columns={"size": size, "hole": np.where(size > 0, size, -1)},
        column_names={"size": ("14", "20", "28")},
    )


def attributes_of(records):
    return {
        "digit": NUMBERS[records.labels[:, 1]],
        "parity": records.labels[:, 0],
        "size": records.columns["size"],
    }


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def mean_by_loop(records, queries, gallery, where, counts):
    """Returns the mean cosine of the ordered pairs that count, None without any."""
    attributes = attributes_of(records)
    values = []
    for i, j in itertools.permutations(np.flatnonzero(where), 2):
        shared = {name for name, x in attributes.items() if x[i] == x[j]}
        gap = abs(attributes["digit"][i] - attributes["digit"][j])
        if counts(shared, gap):
            values.append(cosine(queries[i], gallery[j]))
    return np.mean(values) if values else None


def expected_metrics():
    """Returns for each metric whether a pair counts, by its shared names and gap."""
    rules = {}
    for name in NAMES:
        rules[f"same_{name}"] = lambda shared, gap, name=name: name in shared
        rules[f"other_{name}"] = lambda shared, gap, name=name: name not in shared
    for size in range(4):
        for subset in itertools.combinations(NAMES, size):
            rule = lambda shared, gap, subset=subset: shared == set(subset)
            rules[f"shared_{'+'.join(subset) or 'nothing'}"] = rule
    rules["digit_differs_by_2"] = lambda shared, gap: gap == 2
    return rules


@pytest.mark.parametrize("is_symmetric", [True, False])
def test_every_mean_is_that_of_a_loop(is_symmetric):
    records = create_records()
    rng = np.random.default_rng(1)
    gallery = rng.normal(size=(60, 4)) + 0.5
    queries = gallery if is_symmetric else rng.normal(size=(60, 4)) - 0.2
    where = rng.random(60) < 0.8
    evaluator = SharedAttributes(records, names=NAMES, steps={"digit": 2})
    values = dict(
        evaluator.run(gallery, where, queries=None if is_symmetric else queries)
    )
    means = {
        name: mean_by_loop(records, queries, gallery, where, rule)
        for name, rule in expected_metrics().items()
    }
    # Parity follows from digit: no pair shares the digit alone, or digit and size.
    assert {name for name, x in means.items() if x is None} == {
        "shared_digit",
        "shared_digit+size",
    }
    means = {name: x for name, x in means.items() if x is not None}
    assert values.keys() == means.keys()
    for name, mean in means.items():
        assert values[name] == pytest.approx(mean, abs=1e-12), name


def test_descriptions_are_of_the_same_metrics_in_the_same_order():
    options = dict(names=NAMES, steps={"digit": 2})
    described = SharedAttributes.describe_metrics(**options)
    assert list(described) == [
        *[f"{kind}_{name}" for name in NAMES for kind in ("same", "other")],
        *("shared_digit+parity+size", "shared_parity+size", "shared_digit+size"),
        *("shared_digit+parity", "shared_size", "shared_parity", "shared_digit"),
        *("shared_nothing", "digit_differs_by_2"),
    ]
    rows = np.random.default_rng(0).normal(size=(60, 3))
    evaluator = SharedAttributes(create_records(), **options)
    names = [name for name, _ in evaluator.run(rows)]
    assert names == [name for name in described if name in names]
    assert (
        "parity+size in common, and nothing else of digit, parity, size."
        in (described["shared_parity+size"])
    )


def test_scores_vary_as_the_mean_does_without_an_image():
    """The derivative by an image's weight, beside that of differences."""
    records = create_records(30)
    rows = np.random.default_rng(2).normal(size=(30, 3)) + 0.7
    evaluator = SharedAttributes(records, names=("parity",))
    scores = evaluator.measure(rows)["same_parity"]
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    parity = records.labels[:, 0]
    pairs = (parity[:, None] == parity) & ~np.eye(30, dtype=bool)

    def mean(weights):
        both = np.outer(weights, weights) * pairs
        return np.sum(both * (unit @ unit.T)) / np.sum(both)

    for image in (0, 7, 29):
        change = np.zeros(30)
        change[image] = 1e-5
        slope = (mean(1 + change) - mean(1 - change)) / 2e-5
        influence = scores.values[image] - scores.value * scores.weights[image]
        expected = influence / scores.weights.sum()
        assert expected == pytest.approx(slope, rel=1e-6)


def test_intervals_contain_the_variation_of_both_images_of_a_pair():
    """They are as wide as the values of other draws of images vary."""
    rng = np.random.default_rng(3)
    widths, values = [], []
    for _ in range(200):
        # Length 1, in a plane, around one direction; all in one class.
        angle = rng.normal(size=40)
        rows = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        records = create_records(40)
        records.labels[:] = 0
        scores = SharedAttributes(records, names=("digit",)).measure(rows)["same_digit"]
        interval = bootstrap.interval(scores, num_samples=200)
        widths.append(interval.high - interval.low)
        values.append(scores.value)
    low, high = np.quantile(values, [0.025, 0.975])
    assert np.mean(widths) == pytest.approx(high - low, rel=0.15)


def test_matrices_are_means_of_pairs_by_the_values_of_either():
    records = create_records(300)
    rows = np.random.default_rng(4).normal(size=(300, 4))
    where = np.arange(300) != 5
    evaluator = SharedAttributes(records, names=NAMES)
    by_digit, by_both = evaluator.matrices(rows, where)
    assert by_digit.title == "Mean cosine by digit"
    assert by_digit.names == tuple(map(str, NUMBERS))
    # Sizes are blocks, with the digits within; parity follows from digit.
    assert by_both.title == "Mean cosine by digit, size"
    assert by_both.names == tuple(
        f"{digit} {size}" for size in (14, 20, 28) for digit in NUMBERS
    )
    digit, size = records.labels[:, 1], records.columns["size"]
    for matrix, group in ((by_digit, digit), (by_both, 10 * size + digit)):
        for a, b in ((3, 3), (0, 7), (9, 2)):
            of_either = [np.flatnonzero(where & (group == x)) for x in (a, b)]
            pairs = itertools.product(*of_either)
            cosines = [cosine(rows[i], rows[j]) for i, j in pairs if i != j]
            assert matrix.values[a, b] == pytest.approx(np.mean(cosines))


def test_a_matrix_without_a_pair_has_no_number_there_and_large_ones_are_left_out():
    records = create_records(60)
    records.labels[:, 1] = [9, *[0] * 59]
    rows = np.random.default_rng(0).normal(size=(60, 2))
    (matrix,) = SharedAttributes(records, names=("digit",)).matrices(rows)
    assert np.isnan(matrix.values).tolist() == [[False, False], [False, True]]
    records.labels[:, 1] = np.arange(60)
    evaluator = SharedAttributes(records, names=("digit",))
    assert evaluator.matrices(rows) == []


def test_rows_of_zeros_have_cosine_0():
    records = create_records(10)
    values = dict(SharedAttributes(records, names=("size",)).run(np.zeros((10, 3))))
    assert set(values.values()) == {0.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"names": ()}, "names must be 1 to 5 different levels or columns, got none."),
        ({"names": ("size", "size")}, "names must be 1 to 5 different"),
        ({"names": tuple("abcdef")}, "names must be 1 to 5 different"),
        ({"names": ("digti",)}, "names names 'digti' (did you mean 'digit'?), but"),
        ({"names": ("hole",)}, "records have no hole, e.g. "),
        ({"names": ("size",), "steps": {"parity": 1}}, "steps names parity, whose la"),
        ({"names": ("size",), "steps": {"digit": 0}}, "steps must be numbers above 0"),
        ({"names": ("size",), "steps": {"digit": "x"}}, "steps must be numbers above"),
        ({}, "needs config.evaluation.evaluators.shared_attributes.names: names of"),
    ],
    ids=str,
)
def test_a_wrong_option_is_named(options, message):
    with pytest.raises((ConfigError, DataError), match=re.escape(message)) as error:
        EVALUATORS.create(
            {"name": "shared_attributes", **options}, records=create_records()
        )
    assert "config.evaluation.evaluators.shared_attributes." in str(error.value)
