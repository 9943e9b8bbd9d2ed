import numpy as np
import pytest

from deeprank_jax import similarities
from deeprank_jax.errors import DataError
from tools.benchmark import __main__
from tools.benchmark import similarities as benchmark


def create_rows(num_classes=14, num=4, dim=6, seed=0):
    rng = np.random.default_rng(seed)
    rows = np.repeat(rng.normal(size=(num_classes, dim)), num, axis=0)
    rows[:, dim // 2 :] = 0
    labels = np.repeat([f"class {i}" for i in range(num_classes)], num)
    return rows + rng.normal(size=rows.shape), labels


def rank_by_loop(rows, labels, num, score):
    """MAP@R and Recall@1, query after query, of the nearest `num` put in order."""
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    precisions, firsts = [], []
    for i, row in enumerate(rows):
        others = [j for j in range(len(rows)) if j != i]
        nearest = sorted(others, key=lambda j: -float(row @ rows[j]))[:num]
        ranked = sorted(nearest, key=lambda j: -score(row, rows[j]))
        hits = [labels[j] == labels[i] for j in ranked]
        num_relevant = sum(labels[j] == labels[i] for j in others)
        precision = [
            sum(hits[: k + 1]) / (k + 1) for k in range(num_relevant) if hits[k]
        ]
        precisions.append(sum(precision) / num_relevant)
        firsts.append(hits[0])
    return np.mean(precisions), np.mean(firsts)


class Skewed:
    is_distance = False

    def __call__(self, a, b):
        return np.sum(a * b * np.arange(6), axis=1)


@pytest.mark.parametrize("num", [8, 1000])
def test_a_gallery_is_put_in_order(num):
    rows, labels = create_rows()
    gallery = benchmark.Gallery(rows, labels, num)
    values = []
    for similarity, score in (
        (None, lambda a, b: float(a @ b)),
        (Skewed(), lambda a, b: float((a * b) @ np.arange(6))),
    ):
        scores = gallery.rank(similarity)
        expected = rank_by_loop(rows, labels, num, score)
        metrics = [scores[name].value for name in benchmark.METRICS]
        np.testing.assert_allclose(metrics, expected, atol=1e-12)
        values.append(metrics)
    assert values[0] != values[1]
    by_distance = gallery.rank(similarities.CosineDistance())
    assert by_distance["map_at_r"].value == pytest.approx(values[0][0])


def test_too_few_candidates_are_refused():
    with pytest.raises(
        DataError, match=r"A class has 4 images, .*: raise --num, now 2"
    ):
        benchmark.Gallery(*create_rows(), 2)


def test_it_compares_all_systems(monkeypatch, capsys):
    tables = {"train": create_rows(seed=1), "test": create_rows(seed=2)}

    def read_table(path):
        rows, labels = tables[path]
        return [""] * len(rows), labels.tolist(), rows, "model" if rows[0, 0] else ""

    monkeypatch.setattr(benchmark, "read_table", read_table)
    options = "train=train test=test width=8 num=10 random_steps=3 pair_steps=3"
    options += " hard_steps=2 seeds=2"
    words = ["similarities", *(f"--{option}" for option in options.split())]
    values = benchmark.measure(__main__.create_parser().parse_args(words))
    systems = [
        "cosine", "linear_stage_2", "linear_stage_3", "bilinear",
        "projected_cosine_stage_2", "projected_cosine_stage_3", "simnet_stage_2",
        "simnet_stage_3",
    ]  # fmt: skip
    for metric in benchmark.METRICS:
        for system in systems:
            assert 0 <= values[f"{metric}_{system}"] <= 1
            prefix = f"{metric}_{system}_minus_cosine"
            if system != "cosine":
                assert values[f"{prefix}_low"] <= values[f"{prefix}_high"]
        means = [values[f"{metric}_{x}"] for x in benchmark._LEARNED]
        difference = values[f"{metric}_simnet_minus_projected_mean"]
        assert difference == pytest.approx(means[0] - means[1])
    assert 0 < values["random_error"] < 1
    printed = capsys.readouterr().out
    assert "simnet_stage_3, seed 1: map_at_r 0." in printed
    assert "simnet_stage_3 - projected_cosine_stage_3 |" in printed
    tables["test"][0][0, 0] = 0
    with pytest.raises(DataError, match="train is of the model model, test of : embed"):
        benchmark.measure(__main__.create_parser().parse_args(words))
