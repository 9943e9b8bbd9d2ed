import dataclasses

import numpy as np
import pytest

from deeprank_jax import similarities
from deeprank_jax.errors import DataError
from deeprank_jax.evaluation.axioms import draw_axioms, measure_axioms
from deeprank_jax.report.axioms import AXIOMS, format_share, write_axioms


def create_rows(num=60, dim=4, seed=0):
    rows = np.random.default_rng(seed).normal(size=(num, dim))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def measure_by_loop(score, draws, is_distance, slack):
    """The axioms, one pair and one triple after another."""
    rows = draws.embeddings
    one = lambda i, j: float(score(rows[i : i + 1], rows[j : j + 1])[0])
    zero = 0.0 if is_distance else max(one(i, i) for i in range(len(rows)))
    distance = one if is_distance else lambda i, j: zero - one(i, j)
    both = [(distance(i, j), distance(j, i)) for i, j in draws.pairs.tolist()]
    selves = [abs(distance(i, i)) for i in range(len(rows))]
    gaps = [abs(x - y) for x, y in both]
    excesses = [
        [distance(i, k) - distance(i, j) - distance(j, k) for i, j, k in part.tolist()]
        for part in (draws.triples, draws.near_triples)
    ]
    return {
        "zero": zero,
        "mean_distance": np.mean(both),
        "negative_share": np.mean([x < -slack for pair in both for x in pair]),
        "self_share": np.mean([x > slack for x in selves]),
        "mean_self": np.mean(selves),
        "asymmetric_share": np.mean([x > slack for x in gaps]),
        "mean_asymmetry": np.mean(gaps),
        "triangle_share": np.mean([x > slack for x in excesses[0]]),
        "near_triangle_share": np.mean([x > slack for x in excesses[1]]),
        "worst_excess": max(map(max, excesses)),
    }


def skewed(a, b):
    """A similarity that breaks every axiom."""
    matrix = np.random.default_rng(1).normal(size=(4, 4))
    matrix += np.diag([0.1, 0.2, 0.3, 0.4]) - matrix.T
    return np.sum((a @ matrix) * b, axis=1)


@pytest.mark.parametrize("name", ["skewed", *similarities.fixed_names()])
def test_the_shares_and_sizes_are_those_of_a_loop(name):
    score = skewed if name == "skewed" else similarities.create_similarity(name)
    draws = draw_axioms(create_rows(), 300)
    is_distance = name != "skewed"
    axioms = dataclasses.asdict(measure_axioms(score, draws, is_distance=is_distance))
    slack = 1e-5 * abs(axioms["mean_distance"])
    expected = measure_by_loop(score, draws, is_distance, slack)
    assert axioms == pytest.approx(expected, abs=1e-9)
    if name == "skewed":
        shares = [x for key, x in axioms.items() if key.endswith("share")]
        assert min(shares) > 0


def test_metrics_pass_and_the_others_break_the_triangle():
    draws = draw_axioms(create_rows(), 2000)
    axioms = {
        name: measure_axioms(
            similarities.create_similarity(name), draws, is_distance=True
        )
        for name in similarities.fixed_names()
    }
    for name, x in axioms.items():
        is_metric = name in ("euclidean", "angle")
        assert x.negative_share == x.self_share == x.asymmetric_share == 0, name
        assert (x.triangle_share == x.near_triangle_share == 0) == is_metric, name
        assert x.breaks_triangle != is_metric, name
        # A distance of three images on a line has no excess but its rounding.
        assert (x.worst_excess <= 1e-12) == is_metric, name
    cosine = axioms["cosine"]
    assert cosine.near_triangle_share > 1.5 * cosine.triangle_share


def test_a_tolerance_forgives_as_much():
    draws = draw_axioms(create_rows(), 300)
    noisy = lambda a, b: np.linalg.norm(a - b, axis=1) + 0.01 * a[:, 0]
    strict = measure_axioms(noisy, draws, is_distance=True)
    loose = measure_axioms(noisy, draws, is_distance=True, tolerance=0.05)
    assert strict.asymmetric_share > 0.9
    assert strict.self_share > 0.9
    assert loose.asymmetric_share == loose.self_share == loose.negative_share == 0
    assert loose.mean_asymmetry == strict.mean_asymmetry > 0


@pytest.mark.parametrize("num", [3, 4, 60])
def test_draws_are_of_different_images(num):
    draws = draw_axioms(create_rows(num), 500, seed=2)
    for rows in (draws.pairs, draws.triples, draws.near_triples):
        assert rows.min() >= 0
        assert rows.max() < num
        assert all(len(set(row)) == len(row) for row in rows.tolist())
    # All triples are as likely.
    counts = np.unique(draws.triples, axis=0, return_counts=True)[1]
    assert num == 60 or len(counts) == num * (num - 1) * (num - 2)
    again = draw_axioms(create_rows(num), 500, seed=2)
    np.testing.assert_array_equal(again.near_triples, draws.near_triples)
    assert (draw_axioms(create_rows(num), 500, seed=3).pairs != draws.pairs).any()


def test_neighbours_are_among_the_ten_nearest():
    draws = draw_axioms(create_rows(), 300)
    rows = draws.embeddings
    squares = np.square(rows[:, None] - rows).sum(axis=2)
    ranks = squares.argsort(axis=1).argsort(axis=1)
    near = np.concatenate(
        [draws.pairs[150:], draws.near_triples[:, :2], draws.near_triples[:, 1:]]
    )
    assert ranks[near[:, 0], near[:, 1]].max() == 10
    assert ranks[draws.pairs[:150, 0], draws.pairs[:150, 1]].max() > 40


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(DataError, match="needs three images, and there are 2: give a"):
        draw_axioms(create_rows(2), 10)
    draws = draw_axioms(create_rows(), 10)
    nothing = lambda a, b: np.full(len(a), np.nan)
    with pytest.raises(DataError, match="60 of 60 distances are not finite: train the"):
        measure_axioms(nothing, draws, is_distance=False)


def test_the_page_has_a_row_and_a_paragraph_for_each_axiom(tmp_path):
    draws = draw_axioms(create_rows(), 300)
    axioms = {
        "cosine <b>": measure_axioms(
            similarities.CosineDistance(), draws, is_distance=True
        ),
        "skewed": measure_axioms(skewed, draws, is_distance=False),
    }
    path = tmp_path / "pages" / "axioms.html"
    write_axioms(path, axioms, source="photos", facts={"Draws": "300 pairs"})
    page = path.read_text("utf-8")
    assert page.count("<table>") == 1
    assert page.count("<tr>") == 2 + len(AXIOMS)
    assert "cosine &lt;b&gt;" in page
    for title, formula, about in AXIOMS:
        assert f"<tr><th>{title}<small>{formula}" in page
        assert f'<p class="note">{about}</p>' in page
    assert f"{100 * axioms['skewed'].asymmetric_share:.1f} %" in page
    assert "300 pairs" in page


def test_a_share_is_0_only_if_nothing_fails():
    assert [format_share(x) for x in (0.0, 1e-5, 0.123, 1.0)] == [
        "0 %", "< 0.1 %", "12.3 %", "100.0 %",
    ]  # fmt: skip
