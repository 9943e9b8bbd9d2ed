"""`tools.benchmark out_of_domain` measures what it says, on made-up embeddings."""

import numpy as np

from deeprank_jax.similarities import OutOfDomain
from tools.benchmark import out_of_domain


def test_queries_without_an_answer_are_told_by_distractors():
    rng = np.random.default_rng(0)
    dim, labels = 24, np.repeat(np.arange(20), 7)
    is_other = labels >= 12
    # All images of the other domain share a direction, and so do their distractors.
    shared = np.eye(dim)[0]
    centers = rng.normal(size=(20, dim))
    centers[12:] += 9 * shared
    rows = centers[labels] + 1.5 * rng.normal(size=(140, dim))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    distractors = 9 * shared + rng.normal(size=(30, dim))
    values = out_of_domain.measure_embedded(
        OutOfDomain(), distractors, rows, labels, is_other
    )
    assert values["queries"] == 12 * 3 + 8 * 7
    assert values["queries_without_answer"] == 8 * 7
    assert values["less_distractors_auroc"] > values["cosine_auroc"]
    difference = values["less_distractors_gap"] - values["cosine_gap"]
    assert values["gap_difference"] == difference
    assert values["difference_low"] <= difference <= values["difference_high"]
    assert difference > 0


def test_images_are_numbered_within_their_class():
    labels = np.array([3, 1, 3, 3, 1, 0])
    np.testing.assert_array_equal(
        out_of_domain._number_within(labels), [0, 0, 1, 2, 1, 0]
    )
